"""Presets of the global Gaussian, the example of docs/extending.md."""

from tests.methods.example_method import GlobalGaussianConfig


def presets() -> dict[str, GlobalGaussianConfig]:
    """The named configurations."""
    return {
        "official": GlobalGaussianConfig(),
        "benchmark": GlobalGaussianConfig(backbone="resnet18", crop_size=0),
        "cpu": GlobalGaussianConfig(backbone="resnet18", crop_size=0),
        "smoke": GlobalGaussianConfig(
            backbone="resnet18", image_size=64, crop_size=0, layer="layer1", batch_size=8
        ),
    }
