"""Global Gaussian: one Gaussian over the patch features of all good images, wherever they lie.

The example of docs/extending.md. Knows no positions, so parts need not be aligned.
"""

import dataclasses

import jax.numpy as jnp
from jax import Array

from imvad_jax.methods import base
from imvad_jax.ops import gaussian, resample


@dataclasses.dataclass(frozen=True)
class GlobalGaussianConfig(base.DetectorConfig):
    """Settings of the global Gaussian."""

    layer: str = "layer2"  # of the backbone
    regularization: float = 0.01  # on the diagonal of the covariance
    sigma: float = 4.0  # of the Gaussian that smooths the map, pixels


class GlobalGaussian(base.Detector):
    """Mahalanobis distance of each patch from the patches of good images."""

    config: GlobalGaussianConfig

    @property
    def outputs(self):
        return (self.config.layer,)

    def embed(self, images: Array) -> Array:
        """Patch features `[B, h, w, C]`."""
        return self.features(images)[self.config.layer]

    def init_accumulator(self, capacity):
        return gaussian.empty_moments(1, self.feature_shapes()[self.config.layer][-1])

    def accumulate(self, accumulator, images, index):
        features = self.embed(images)
        _, rows, columns, channels = features.shape
        # Every patch is a sample of the one position; those of padding images are left out.
        valid = jnp.repeat(index >= 0, rows * columns)
        return gaussian.update_moments(accumulator, features.reshape(-1, 1, channels), valid)

    def finalize(self, accumulators, count, key, progress):
        moments = gaussian.merge_all(accumulators)
        whitening = gaussian.whitening(moments.scatter, moments.count, self.config.regularization)
        return {"mean": moments.mean, "whitening": whitening}

    def __call__(self, images):
        features = self.embed(images)
        batch, rows, columns, channels = features.shape
        distances = gaussian.mahalanobis(
            features.reshape(-1, 1, channels), self.memory("mean"), self.memory("whitening")
        )
        grid = distances.reshape(batch, rows, columns)
        anomaly_map = resample.upsample_and_smooth(grid, images.shape[1:3], self.config.sigma)
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def memory_estimate(self, images, devices):
        rows, columns, channels = self.feature_shapes()[self.config.layer]
        return {
            "backbone": self.backbone_bytes() * devices,
            "features of a batch": 4 * self.config.batch_size * rows * columns * channels
            * base.FLOAT,
        }  # fmt: skip
