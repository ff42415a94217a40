"""Presets."""

from imvad_jax.methods.csflow import CSFlowConfig


def presets() -> dict[str, CSFlowConfig]:
    """The named configurations."""
    return {
        "official": CSFlowConfig(),
        "benchmark": CSFlowConfig(epsilon=1e-8, gradient_clip=0.0),
        "cpu": CSFlowConfig(
            backbone="resnet18",
            layer="layer3",
            image_size=256,
            hidden=64,
            epochs=30,
            learning_rate=1e-3,
        ),
        "demo": CSFlowConfig(
            backbone="efficientnet_lite0", image_size=256, hidden=64, epochs=30, batch_size=8
        ),
        "smoke": CSFlowConfig(
            backbone="resnet18",
            layer="layer1",
            image_size=64,
            flow_blocks=1,
            hidden=8,
            epochs=4,
            batch_size=8,
            learning_rate=1e-2,  # so that a few dozen steps learn something
        ),
    }
