"""Presets of STPM (Wang et al., 2021).

The official setting (ResNet-18, 100 epochs of batches of 32 at 256 pixels):

    imvad run --method=stpm --preset=official --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

`benchmark` is the recipe behind the published table: batches of 8, a student that starts as its
teacher, half the sum of the distances over a batch as the loss (four times the official one), and
maps that are multiplied at the size of the image.

`cpu` is the official setting with the teacher's features kept. The figures it reaches and the
minutes it takes stand in RESULTS.md with their commands. `demo` is small so that it trains in about
two minutes on a CPU.
"""

from imvad_jax.methods.stpm import STPMConfig


def presets() -> dict[str, STPMConfig]:
    """The named configurations."""
    return {
        "official": STPMConfig(),
        "benchmark": STPMConfig(
            batch_size=8,
            weight_decay=1e-5,
            student_start="teacher",
            summed_loss=True,
            full_size_product=True,
        ),
        "cpu": STPMConfig(cache_features=True),
        "demo": STPMConfig(
            backbone="efficientnet_lite0",
            image_size=128,
            epochs=30,
            batch_size=16,
            cache_features=True,
        ),
        "smoke": STPMConfig(image_size=64, epochs=5, batch_size=4, layers=("layer1", "layer2")),
    }
