"""Presets of SPADE (Cohen, Hoshen, 2020).

The benchmark's variant, ResNet-18 at 256 without crop and K = 5:

    imvad run --method=spade --preset=benchmark --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

`official` and `paper` shrink images by Lanczos' filter and masks by their nearest pixel, as the
reference code.

`presets.reached("spade", "cpu")` gives the figures reached, with their commands (RESULTS.md).
"""

from imvad_jax.methods.spade import SPADEConfig


def presets() -> dict[str, SPADEConfig]:
    """The named configurations. `official` is the reference code; the paper has K = 50."""
    return {
        "official": SPADEConfig(resize="lanczos", mask_rule="nearest"),
        "paper": SPADEConfig(num_neighbors=50, resize="lanczos", mask_rule="nearest"),
        "benchmark": SPADEConfig(backbone="resnet18", crop_size=0),
        "cpu": SPADEConfig(backbone="resnet18", crop_size=0),
        "demo": SPADEConfig(backbone="efficientnet_lite0", crop_size=0),
        "smoke": SPADEConfig(
            backbone="resnet18", image_size=64, crop_size=0, num_neighbors=3, batch_size=8
        ),
    }
