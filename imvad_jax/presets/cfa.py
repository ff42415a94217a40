"""Presets of CFA (Lee et al., 2022).

The official setting (WRN-50-2, 256 cropped to 224, 30 epochs of batches of 4):

    imvad run --method=cfa --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/wide_resnet50_2.tv_in1k@main \\
        --workdir=RUN

It shrinks images by Lanczos' filter and masks by their nearest pixel. `benchmark` is ResNet-18 at
256 without crop for 50 epochs. `cpu` cuts them. The figures it reaches and the minutes it takes
stand in RESULTS.md with their commands.
"""

from imvad_jax.methods.cfa import CFAConfig


def presets() -> dict[str, CFAConfig]:
    """The named configurations."""
    return {
        "official": CFAConfig(resize="lanczos", mask_rule="nearest"),
        "benchmark": CFAConfig(backbone="resnet18", crop_size=0, epochs=50),
        "cpu": CFAConfig(backbone="resnet18", crop_size=0, epochs=20, cache_features=True),
        "demo": CFAConfig(backbone="efficientnet_lite0", image_size=192, crop_size=0, epochs=10),
        "smoke": CFAConfig(
            backbone="resnet18",
            image_size=64,
            crop_size=0,
            layers=("layer1", "layer2"),
            gamma_d=4,
            epochs=4,
        ),
    }
