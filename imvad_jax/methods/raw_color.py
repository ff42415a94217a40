"""The raw-colour baseline: one Gaussian per pixel on the colours at 64 pixels, without a network.

It is not one of the benchmark's methods, but part of every table: a method that does not beat it
has learned nothing about the parts.

What it learns: Nothing is trained, and there is no network: a Gaussian of the colours at each
pixel, at 64 pixels, over the good images.

When to use it: As a measure: a dataset on which it scores high asks for little, and a method that
does not beat it has learnt nothing about parts.

When not: For work: it sees changes of colour at a place and nothing else.
"""

import dataclasses

import jax
from jax import Array

from imvad_jax.methods import base
from imvad_jax.ops import gaussian, resample


@dataclasses.dataclass(frozen=True)
class RawColorConfig(base.DetectorConfig):
    """Settings of the baseline."""

    backbone: str = "none"
    crop_size: int = 0
    # Images are averaged down to a square of this many pixels per side.
    grid_size: int = 64
    # Added to the diagonal of each covariance matrix, for colours in [0, 1].
    regularization: float = 1e-4


class RawColor(base.Detector[RawColorConfig]):
    """Mahalanobis distance of each pixel's colour from that pixel's colours in good images."""

    config: RawColorConfig

    def embed(self, images: Array) -> Array:
        """Colours `[B, grid_size^2, 3]`."""
        batch, size = images.shape[0], self.config.grid_size
        small = jax.image.resize(images, (batch, size, size, 3), "linear", antialias=True)
        return small.reshape(batch, size * size, 3)

    def init_accumulator(self, capacity):
        return gaussian.empty_moments(self.config.grid_size**2, 3)

    def accumulate(self, accumulator, images, index):
        return gaussian.update_moments(accumulator, self.embed(images), index >= 0)

    def finalize(self, accumulators, count, key, progress):
        moments = gaussian.merge_all(accumulators)
        whitening = gaussian.whitening(moments.scatter, moments.count, self.config.regularization)
        return {"mean": moments.mean, "whitening": whitening}

    def __call__(self, images):
        mean, whitening = (self.memory(name) for name in ("mean", "whitening"))
        distances = gaussian.mahalanobis(self.embed(images), mean, whitening)
        size = self.config.grid_size
        grid = distances.reshape(images.shape[0], size, size)
        anomaly_map = resample.resize_bilinear(grid[..., None], images.shape[1:3])[..., 0]
        return base.Prediction(distances.max(1), anomaly_map)

    def memory_estimate(self, images, devices):
        return {"features of a batch": 20 * self.config.batch_size * self.config.input_size**2 * 3}
