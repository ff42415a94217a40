"""Presets of FastFlow (Yu et al., 2021); all report the last epoch.

The variant on two CPU cores, ResNet-18 at 256, of whose 500 epochs it trains 20, in batches of 8
for four times as many steps:

    imvad run --method=fastflow --preset=cpu --dataset=mvtec_ad \\
        --data_dir=DIR --category=screw --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

The figures it reaches and the minutes it takes stand in RESULTS.md with their commands.
`--conv3x3_only=True` is the ResNet-18 of gathierry/FastFlow.
"""

from imvad_jax.methods.fastflow import FastFlowConfig


def presets() -> dict[str, FastFlowConfig]:
    """The named configurations."""
    return {
        "official": FastFlowConfig(),
        "benchmark": FastFlowConfig(backbone="resnet18"),
        "cpu": FastFlowConfig(backbone="resnet18", epochs=20, batch_size=8, cache_features=True),
        "demo": FastFlowConfig(
            backbone="efficientnet_lite0",
            flow_steps=4,
            epochs=40,
            batch_size=8,
            cache_features=True,
        ),
        "smoke": FastFlowConfig(
            backbone="resnet18",
            image_size=64,
            flow_steps=2,
            epochs=4,
            batch_size=8,
            learning_rate=3e-3,  # so that a few dozen steps learn something
        ),
    }
