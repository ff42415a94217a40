"""CFA: pulls patch features towards memory centres of good images, away from the next centres.

Lee, Lee, Song, "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly
Localization", IEEE Access 10, 2022, arXiv 2206.04325. As in the authors' code, the memory has one
centre per position (the paper describes k-means and moving averages).

What it learns: A small convolution with coordinates (CoordConv) on top of a frozen network, so that
the patch features of good images lie close to memory centres, one a position, averaged over the
good images. A patch is as anomalous as its distance to the nearest centres.

When to use it: Parts in a fixed pose, where PatchCore's memory or its time per image is too large:
the memory is as large as the grid of one image, however many images are fitted on.

When not: Scoring must be fast on a CPU, or parts lie at any angle: every patch is compared with all
centres, and the training takes longer than PatchCore's whole fit, which reached more on our data.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from imvad_jax import backbones
from imvad_jax.errors import UserError
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.layers.coordconv import CoordConv
from imvad_jax.methods import base
from imvad_jax.ops import loops, neighbors, resample, rows
from imvad_jax.ops.precision import full_precision

HIGHEST = lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class CFAConfig(base.TrainedConfig):
    """Settings of CFA, names as in the paper and its code.

    `dtype` is the backbone's alone: nu multiplies differences of squared distances by a thousand,
    so descriptor and distances are computed in float32 at least.
    """

    batch_size: int = 4
    epochs: int = 30
    optimizer: str = "adamw"
    weight_decay: float = 5e-4
    amsgrad: bool = True
    # Backbone layers whose feature maps are concatenated.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # K: number of nearest centres that attract a patch.
    num_neighbors: int = 3
    # J: number of next-nearest centres, which repel the patch.
    num_negatives: int = 3
    # Softness of the boundary; the loss is divided by it.
    nu: float = 1e-3
    # Margin of the repulsion term.
    alpha: float = 0.1
    # Initial radius r of the hyperspheres; it is trained.
    radius: float = 1e-5
    # k-means compresses the memory bank to 1 / gamma_c of its centres; 1 keeps one per position.
    gamma_c: int = 1
    # The descriptor has 1 / gamma_d of the channels of the concatenated features.
    gamma_d: int = 1
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_neighbors", "num_negatives", "gamma_c", "gamma_d"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: must be at least 1")
        if self.nu <= 0:
            raise UserError(f"--nu={self.nu}: must be positive")


class RunningMean(NamedTuple):
    """Mean over the images seen so far, position by position.

    The official code weighs batches equally, whatever their size; here every image counts once.
    """

    # []
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Array  # [P, D]


class CoupledHyperspheres(nn.Module):
    """The soft-boundary loss: attraction and repulsion by hyperspheres of one trained radius r."""

    config: CFAConfig

    @nn.compact
    def __call__(self, squared: Array) -> tuple[Array, dict[str, Array]]:
        """The loss `[]` of squared distances `[..., K + J]` to the nearest centres, ascending."""
        start = nn.initializers.constant(self.config.radius)
        squared_radius = jnp.square(self.param("radius", start, (), jnp.float32))
        split = self.config.num_neighbors
        attraction = jnp.maximum(squared[..., :split] - squared_radius, 0).mean()
        repulsion = squared_radius - squared[..., split:] - self.config.alpha
        repulsion = jnp.maximum(repulsion, 0).mean()
        metrics = {
            "attraction": attraction / self.config.nu,
            "repulsion": repulsion / self.config.nu,
            "radius": jnp.sqrt(squared_radius),  # its sign means nothing
        }
        return (attraction + repulsion) / self.config.nu, metrics


class CFA(base.Detector[CFAConfig]):
    """CFA (Lee et al., 2022): centres of the untrained descriptor first, then its training."""

    config: CFAConfig
    phases = ("statistics", "gradient")
    all_by_rows = True

    def setup(self):
        dtype = jnp.promote_types(self.config.dtype, jnp.float32)
        channels = [shape[-1] for shape in self.feature_shapes().values()]
        self.descriptor = CoordConv(channels, self.dim, dtype=dtype, precision=HIGHEST)
        self.hyperspheres = CoupledHyperspheres(self.config)

    @property
    def has_pre_activation(self) -> bool:
        """Whether the backbone's blocks end in an activation that CFA undoes (ResNets)."""
        taps = backbones.get(self.config.backbone).outputs
        return all(f"{name}_pre" in taps for name in self.config.layers)

    @property
    def outputs(self):
        suffix = "_pre" if self.has_pre_activation else ""
        return tuple(name + suffix for name in self.config.layers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid, that of the first layer."""
        return self.feature_shapes()[self.outputs[0]][:2]

    @property
    def total_channels(self) -> int:
        """Channels of all layers together."""
        return sum(shape[-1] for shape in self.feature_shapes().values())

    @property
    def dim(self) -> int:
        """Values of a patch descriptor (the official code doubles them on EfficientNets)."""
        widening = 1 if self.has_pre_activation else 2
        return max(widening * self.total_channels // self.config.gamma_d, 1)

    @property
    def num_centers(self) -> int:
        """Centres in the memory."""
        return self.grid[0] * self.grid[1] // self.config.gamma_c

    def averaged(self, images: Array) -> list[Array]:
        """Features `[B, h, w, C]` of all layers, averaged over 3x3, each at its own size."""
        maps, found = self.features(images), []
        for name in self.outputs:
            part = full_precision(maps[name])
            if self.has_pre_activation:
                part = nn.leaky_relu(part, 0.01)
            else:
                # An EfficientNet's stages end linear; the official code divides by the width.
                part = part / part.shape[-1]
            found.append(_average_3x3(part))
        return found

    def frozen_features(self, images):
        return self.averaged(images)

    def describe(self, maps: Sequence[Array]) -> Array:
        """Patch descriptors `[B, P, D]` of the layers' maps `[B, h, w, C]`."""
        return self.descriptor(maps).reshape(maps[0].shape[0], -1, self.dim)

    def embed(self, images: Array) -> Array:
        """Patch descriptors `[B, P, D]` of images."""
        return self.describe(self.averaged(images))

    def init_parameters(self, images):
        shapes = self.feature_shapes().values()
        self.descriptor([jnp.zeros((1, *shape)) for shape in shapes])
        self.hyperspheres(jnp.zeros(self.config.num_neighbors + self.config.num_negatives))

    def init_accumulator(self, capacity):
        mean = jnp.zeros((self.grid[0] * self.grid[1], self.dim))
        return RunningMean(jnp.zeros(()), mean)

    def accumulate(self, accumulator, images, index):
        weight = (index >= 0).astype(jnp.float32)
        total = accumulator.count + weight.sum()
        away = self.embed(images) - accumulator.mean
        shift = jnp.einsum("b,bpd->pd", weight, away, precision=HIGHEST) / jnp.maximum(total, 1)
        return RunningMean(total, accumulator.mean + shift)

    def finalize(self, accumulators, count, key, progress):
        needed = self.config.num_neighbors + self.config.num_negatives
        if self.num_centers < needed:
            raise UserError(
                f"--gamma_c={self.config.gamma_c}: leaves {self.num_centers} centres; the loss "
                f"needs num_neighbors + num_negatives = {needed}"
            )
        counts = np.array([float(part.count) for part in accumulators])
        shares = counts / counts.sum()
        means = [np.asarray(part.mean, np.float64) for part in accumulators]
        weighted = [mean * share for mean, share in zip(means, shares)]
        centers = np.sum(weighted, 0).astype(np.float32)
        if self.config.gamma_c > 1:
            done = progress(1, "k-means")
            centers = _compress(centers, self.num_centers, int(jax.random.bits(key)))
            done(1)
        return {"centers": jnp.asarray(centers)}

    def loss(self, inputs):
        near = self.config.num_neighbors + self.config.num_negatives
        return self.hyperspheres(self.squared_distances(inputs, near))

    def __call__(self, images):
        def scores_of(images):
            squared = self.squared_distances(self.averaged(images), self.config.num_neighbors)
            scores = softmin_score(jnp.sqrt(squared))
            return scores.reshape(images.shape[0], -1, self.grid[1])

        scores = rows.by_rows(scores_of, images)
        anomaly_map = resample.upsample_and_smooth(scores, images.shape[1:3], self.config.sigma)
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def squared_distances(self, maps: Sequence[Array], k: int) -> Array:
        """Squared distances `[B, P, k]` of all patches to the `k` nearest centres, ascending.

        The centres are found by expansion: the products of a patch with all centres are linear in
        its features, so that every layer's are computed at its own size and enlarged
        (`neighbors.nearest_rows_of_maps`). The distances to the chosen few are taken directly.
        """
        centers = self.memory("centers")
        factors, norms = self._search(centers)
        larger = self.descriptor.inputs(maps)
        if rows.count() > 1:  # what is enlarged needs the rows beside
            width = maps[0].shape[2]
            larger = [m if m.shape[2] == width else rows.bordered(m, 1, 1) for m in larger]
        chosen = loops.each(
            lambda maps: neighbors.nearest_rows_of_maps(maps, factors, norms, k),
            lax.stop_gradient(larger),
        )
        return distances_to(self.describe(maps), centers, chosen)

    def _search(self, centers: Array) -> tuple[list[Array], Array]:
        """Factors and norms of the centres, made once where fitted variables are placed."""
        if self.has_variable(TRANSFORMED, "search"):
            return self.get_variable(TRANSFORMED, "search")
        origin = centers.mean(0)  # expansion cancels unless the centres are centred
        factors, constant = self.descriptor.factors(centers - origin)
        # Of a descriptor q without its bias b: (q + b - origin) . c = q . c + constant - origin . c
        missing = constant - jnp.matmul(centers - origin, origin, precision=HIGHEST)
        norms = jnp.sum((centers - origin) ** 2, -1) - 2 * missing
        found = lax.stop_gradient((factors, norms))
        if self.is_mutable_collection(TRANSFORMED):
            self.put_variable(TRANSFORMED, "search", found)
        return found

    def memory_estimate(self, images, devices):
        positions = self.grid[0] * self.grid[1]
        bank = self.num_centers * self.dim * base.FLOAT
        parameters = (self.total_channels + 3) * self.dim * base.FLOAT
        patch = positions * (self.total_channels + self.dim) * base.FLOAT
        block = min(neighbors.ROWS_WITH_NUMBERS, self.num_centers)
        return {
            "backbone": self.backbone_bytes() * devices,
            "parameters, gradients, optimiser state": 6 * parameters * devices,
            "memory centres": 5 * bank * devices,
            "distances of one image": 4 * positions * block * base.FLOAT * devices,
            "features of a batch": 5 * patch * max(self.config.batch_size, devices),
        }


def _average_3x3(features: Array) -> Array:
    """Averages of 3x3 positions of `[B, h, w, C]`; zeros beyond the border count."""

    def axis(n: int) -> Array:
        return jnp.asarray(sum(np.eye(n, k=k) for k in (-1, 0, 1)) / 3, features.dtype)

    features = rows.gather(features)
    lines, columns = rows.own_rows(axis(features.shape[1])), axis(features.shape[2])
    return jnp.einsum("Hh,bhwc,Ww->bHWc", lines, features, columns, precision=HIGHEST)


def distances_to(descriptors: Array, centers: Array, chosen: Array) -> Array:
    """Squared distances `[B, P, k]` from `[B, P, D]` to the rows `chosen` `[B, P, k]` of `[M, D]`.

    They are taken directly, not by expansion, so nothing cancels, and the gradient is a sum over k
    centres instead of a product with all of them. The centres are constants.
    """
    centers = lax.stop_gradient(centers)

    @jax.checkpoint  # keeps the row numbers for the gradient, not the rows
    def to_center(row: Array) -> Array:
        return jnp.sum((descriptors - centers[row]) ** 2, -1)

    return jnp.moveaxis(loops.each(to_center, jnp.moveaxis(chosen, -1, 0)), 0, -1)


def softmin_score(distances: Array) -> Array:
    """Patch scores: the least of `[..., K]` distances, weighted by its softmin over K."""
    return jax.nn.softmax(-distances).max(-1) * distances.min(-1)


def _compress(centers: np.ndarray, count: int, seed: int) -> np.ndarray:
    """k-means centres `[count, D]` of `[M, D]`, on the host."""
    from sklearn.cluster import KMeans  # takes a second to import, and few need it

    once = cast(Any, 1)  # the stubs know `auto` alone
    found = KMeans(count, max_iter=3000, n_init=once, random_state=seed % 2**32).fit(centers)
    return found.cluster_centers_.astype(np.float32)
