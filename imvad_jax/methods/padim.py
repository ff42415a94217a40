"""PaDiM: one Gaussian per position over a random subset of pretrained feature channels.

Defard, Setkov, Loesch, Audigier, "PaDiM", ICPR 2020 workshops, arXiv 2011.08785.

What it learns: Nothing is trained: mean and covariance of some channels of a frozen network's
features at each position of the image, over the good images. A patch is as anomalous as its
Mahalanobis distance there.

When to use it: Parts in a fixed pose, and a result in seconds: one pass over the images, constant
time and memory per image afterwards. The place to start, with PatchCore.

When not: Parts lie at any angle or place: each position has its own Gaussian, which then holds a
mixture. Its image AUROC on screws is far below that of PatchCore. Fewer images than channels rely
on the regularisation of the covariances.
"""

import dataclasses
import random

import jax
import jax.numpy as jnp
from jax import Array

from imvad_jax.errors import choose
from imvad_jax.methods import base
from imvad_jax.ops import gaussian, resample, rows
from imvad_jax.ops.channels import take_channels
from imvad_jax.ops.sums import total

CHANNELS = ("seed", "padim_1024")


@dataclasses.dataclass(frozen=True)
class PaDiMConfig(base.DetectorConfig):
    """Settings of PaDiM, names as in the paper where it has them."""

    # Backbone layers whose feature maps are concatenated.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # d: number of channels drawn at random from all layers; 0 means 100, or 550 for ResNet-50 and
    # WRN50-2.
    num_channels: int = 0
    # How the channels are drawn: seed (by the seed of the run) or padim_1024 (the fixed draw of the
    # common implementation: `random.seed(1024)`, then `random.sample`).
    channels: str = "seed"
    # epsilon, added to the diagonal of each covariance matrix (eq. 1).
    regularization: float = 0.01
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0
    # Image score: map (largest value of the smoothed map, as in the common implementation) or patch
    # (largest distance at a position, not smoothed).
    image_score: str = "map"

    def __post_init__(self):
        super().__post_init__()
        choose("--image_score", self.image_score, base.IMAGE_SCORES)
        choose("--channels", self.channels, CHANNELS)


class PaDiM(base.Detector[PaDiMConfig]):
    """PaDiM (Defard et al., 2020). Nothing is trained; the fit streams in constant memory."""

    config: PaDiMConfig
    of_positions = ("mean", "whitening")
    all_by_rows = True

    @property
    def outputs(self):
        return self.config.layers

    @property
    def total_channels(self) -> int:
        """Channels of all layers together."""
        return sum(shape[-1] for shape in self.feature_shapes().values())

    @property
    def dim(self) -> int:
        """Channels kept (the paper's d)."""
        usual = 550 if self.config.backbone in ("resnet50", "wide_resnet50_2") else 100
        return min(self.config.num_channels or usual, self.total_channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature map of the first layer."""
        return self.feature_shapes()[self.config.layers[0]][:2]

    def init_memory(self, key):
        if self.config.channels == "padim_1024":
            chosen = jnp.array(random.Random(1024).sample(range(self.total_channels), self.dim))
        else:
            chosen = jax.random.choice(key, self.total_channels, (self.dim,), replace=False)
        return {"channels": jnp.sort(chosen)}  # distances do not depend on their order

    def embed(self, images: Array) -> Array:
        """The chosen channels `[B, P, d]` of all layers, on the grid of the first."""
        grid = (rows.divided(self.grid[0]), self.grid[1])
        chosen = self.memory("channels")
        maps = self.features(images)
        start, parts = 0, []
        # Chosen before they are enlarged; those of other layers are zero.
        for features in (maps[name] for name in self.config.layers):
            own = take_channels(features, chosen - start)
            parts.append(resample.resize_nearest(own, grid))
            start += features.shape[-1]
        return total(parts).reshape(images.shape[0], grid[0] * grid[1], self.dim)

    def init_accumulator(self, capacity):
        return gaussian.empty_pending(self.grid[0] * self.grid[1], self.dim, capacity)

    def accumulate(self, accumulator, images, index):
        return gaussian.add_pending(accumulator, self.embed(images), index >= 0)

    def flush(self, accumulator):
        return gaussian.flush(accumulator)

    def finalize(self, accumulators, count, key, progress):
        moments = gaussian.merge_all([part.moments for part in accumulators])
        done = progress(1, "covariances")
        whitening = gaussian.whitening(moments.scatter, moments.count, self.config.regularization)
        done(1)
        return {
            "channels": self.memory("channels"),
            "mean": moments.mean,
            "whitening": whitening,
        }

    def __call__(self, images):
        def distances(images):
            embedding, memory = self.embed(images), map(self.memory, self.of_positions)
            found = gaussian.mahalanobis(embedding, *memory)
            return found.reshape(images.shape[0], -1, self.grid[1])

        grid = rows.by_rows(distances, images)
        anomaly_map = resample.upsample_and_smooth(grid, images.shape[1:3], self.config.sigma)
        scores = base.image_scores(grid, anomaly_map, self.config.image_score)
        return base.Prediction(scores, anomaly_map)

    def memory_estimate(self, images, devices):
        positions = self.grid[0] * self.grid[1]
        square = positions * self.dim**2 * base.FLOAT
        features = positions * self.total_channels * base.FLOAT
        return {
            "backbone": self.backbone_bytes() * devices,
            "covariances, one set per device": square * devices,
            "samples gathered": positions * gaussian.PENDING * self.dim * base.FLOAT * devices,
            "features of a batch": 3 * features * self.config.batch_size,
        }
