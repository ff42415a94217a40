"""The smallest method with a gradient phase: an autoencoder with batch normalisation."""

import dataclasses

import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.layers.norm import batch_norm
from imvad_jax.methods import base
from imvad_jax.ops.precision import full_precision
from imvad_jax.training.fit import init_variables


@dataclasses.dataclass(frozen=True)
class ToyConfig(base.TrainedConfig):
    """Settings of the toy."""

    backbone: str = "none"
    image_size: int = 64
    crop_size: int = 0
    batch_size: int = 8
    epochs: int = 2
    optimizer: str = "sgd"  # Adam blows rounding up where a gradient is nearly zero
    learning_rate: float = 0.1


class Toy(base.Detector):
    """Reconstructs images."""

    config: ToyConfig
    phases = ("gradient",)

    @nn.compact
    def reconstruct(self, images, train):
        dtype = jnp.dtype(self.config.dtype)
        x = nn.Conv(8, (3, 3), (4, 4), use_bias=False, dtype=dtype)(images)
        x = nn.relu(batch_norm(train, dtype, name="norm")(x))
        return nn.ConvTranspose(3, (4, 4), (4, 4), dtype=dtype)(x)

    def loss(self, images):
        loss = full_precision((self.reconstruct(images, True) - images) ** 2).mean()
        return loss, {}

    def __call__(self, images):
        anomaly_map = ((self.reconstruct(images, False) - images) ** 2).mean(-1)
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)


def make(**settings):
    """The toy and its variables before the fit."""
    detector = Toy(ToyConfig(**settings))
    return detector, init_variables(detector, None, seed=0)
