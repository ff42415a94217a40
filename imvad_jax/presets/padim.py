"""Presets of PaDiM (Defard et al., 2020).

The benchmark's variant, ResNet-18 at 256 without crop:

    imvad run --method=padim --preset=benchmark --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

`official` is the common code's (there is no official one): images are shrunk by Lanczos' filter,
masks by their nearest pixel, and the channels are those that it draws with seed 1024.

`presets.reached("padim", "cpu")` gives the figures reached, with their commands (RESULTS.md).
"""

from imvad_jax.methods.padim import PaDiMConfig


def presets() -> dict[str, PaDiMConfig]:
    """The named configurations."""
    return {
        "official": PaDiMConfig(resize="lanczos", mask_rule="nearest", channels="padim_1024"),
        "benchmark": PaDiMConfig(backbone="resnet18", crop_size=0),
        "cpu": PaDiMConfig(backbone="resnet18", crop_size=0),
        "demo": PaDiMConfig(backbone="efficientnet_lite0", crop_size=0),
        "smoke": PaDiMConfig(
            backbone="resnet18", image_size=64, crop_size=0, num_channels=32, batch_size=8
        ),
    }
