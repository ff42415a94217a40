"""PatchCore: nearest-neighbour distance to a coreset of patch features of good images.

Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022, arXiv 2106.08265.

What it learns: Nothing is trained: a choice of the patch features of good images, a coreset that
covers the others, is kept as a memory bank. A patch is as anomalous as its distance to the nearest
one in the bank.

When to use it: Nearly always first: it fits in one pass, does not ask for a fixed pose, and reached
the highest image AUROC of all methods on our data. `coreset_ratio` trades time per image for a
little accuracy.

When not: There are many thousands of good images, or only milliseconds per image: all patches are
held in memory while the coreset is picked, and scoring slows down as the bank grows (BENCHMARKS.md,
scaling).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.errors import UserError, choose
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.methods import base, buffers
from imvad_jax.ops import (
    collectives,
    convolution,
    coreset,
    loops,
    neighbors,
    patches,
    resample,
    rows,
)

BANK_BUCKET = 1024  # bank rows are rounded up to this, so that categories share programs


@dataclasses.dataclass(frozen=True)
class PatchCoreConfig(base.DetectorConfig):
    """Settings of PatchCore, names as in the official code where it has them."""

    # Backbone layers whose patch features are combined.
    layers: tuple[str, ...] = ("layer2", "layer3")
    # Side of the neighbourhood that each patch feature aggregates, in feature-map positions.
    patch_size: int = 3
    # How a patch becomes its feature vector: official (two adaptive poolings over channels and
    # positions together, which mix positions if a layer has fewer channels than embedding_dim) or
    # local_average (as in the paper: each channel is averaged over the patch).
    aggregation: str = "official"
    # Dimension of a patch feature after the two adaptive poolings. For local_average the maximum: a
    # layer with fewer channels adds no dimensions.
    embedding_dim: int = 1024
    # Fraction of the training patches kept in the memory bank. Lower it for speed and memory.
    coreset_ratio: float = 0.1
    # Patches per training image that enter the coreset selection; 0 means all. Set it when there
    # are too many images for memory: the coreset is then approximate.
    patches_per_image: int = 0
    # Dimension of the random projection in which the coreset is selected.
    projection_dim: int = 128
    # The patch score is the mean squared distance to this many nearest neighbours.
    num_neighbors: int = 1
    # b: number of neighbours in the paper's score re-weighting (eq. 7); 0 disables it, as the
    # official code does.
    reweight_neighbors: int = 0
    # Image score: patch (distance of the most anomalous patch, as in the official code) or map
    # (largest value of the smoothed map).
    image_score: str = "patch"
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0
    # Shard the memory bank over the devices while scoring, for banks too large for one device.
    shard_bank: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose("--aggregation", self.aggregation, patches.AGGREGATIONS)
        choose("--image_score", self.image_score, base.IMAGE_SCORES)
        if self.reweight_neighbors and self.image_score == "map":
            raise UserError(
                f"--reweight_neighbors={self.reweight_neighbors}: weighs the worst patch, which "
                "--image_score=map does not look at; expected --image_score=patch"
            )
        if not 0 < self.coreset_ratio <= 1:
            raise UserError(f"--coreset_ratio={self.coreset_ratio}: must lie in (0, 1]")
        if self.patches_per_image < 0:
            raise UserError(f"--patches_per_image={self.patches_per_image}: must not be negative")
        if self.num_neighbors < 1:
            raise UserError(f"--num_neighbors={self.num_neighbors}: must be at least 1")
        if self.shard_bank and (self.num_neighbors > 1 or self.reweight_neighbors):
            raise UserError(
                "--shard_bank=True: only with one neighbour and no re-weighting (--num_neighbors=1 "
                "--reweight_neighbors=0), where the devices can combine their minima"
            )

    @property
    def notes(self):
        if not self.patches_per_image:
            return ()
        kept = f"{self.patches_per_image} patches of each training image"
        return (f"APPROXIMATE CORESET: picked from {kept}, not from all.",)


class PatchCore(base.Detector[PatchCoreConfig]):
    """PatchCore (Roth et al., 2022), exact to the official code by default."""

    config: PatchCoreConfig
    all_by_rows = True

    @property
    def outputs(self):
        return self.config.layers

    @property
    def sharded(self):
        return ("bank",) if self.config.shard_bank else ()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid, that of the first layer."""
        return self.feature_shapes()[self.config.layers[0]][:2]

    def init_memory(self, key):
        # torch's default start of a linear layer, which the official projection is.
        bound = self.dim**-0.5
        shape = (self.dim, self.config.projection_dim)
        draws = {"projection": jax.random.uniform(key, shape, minval=-bound, maxval=bound)}
        if self.kept < self.positions:
            order = jax.random.permutation(jax.random.fold_in(key, 1), self.positions)
            draws["position_order"] = order.astype(jnp.int32)
        return draws

    @property
    def positions(self) -> int:
        """Patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def kept(self) -> int:
        """Patches of a training image that the coreset is picked from."""
        return min(self.config.patches_per_image or self.positions, self.positions)

    @property
    def kernels(self) -> list[np.ndarray]:
        """What makes each layer's share of the patch vectors: `[k, k, C, n]`."""
        shapes, config = self.feature_shapes(), self.config
        channels = tuple(shapes[name][-1] for name in config.layers)
        make = patches.AGGREGATIONS[config.aggregation]
        return make(channels, config.embedding_dim, config.patch_size)

    @property
    def dim(self) -> int:
        """Values of a patch vector (D)."""
        if self.config.aggregation == "official":
            return self.config.embedding_dim
        return sum(kernel.shape[-1] for kernel in self.kernels)

    def patch_maps(self, images: Array) -> list[Array]:
        """Each layer's share of the patch vectors, `[B, h, w, D]`: at most as large as the grid."""
        grid = self._own_grid()
        maps = self.features(images)
        found = []
        for name, kernel in zip(self.config.layers, self.kernels):
            part = patches.aggregate_patches(maps[name], kernel)
            larger = part.shape[1] > grid[0] or part.shape[2] > grid[1]
            found.append(resample.resize_bilinear(part, grid) if larger else part)
        return found

    def embed(self, images: Array) -> Array:
        """Patch vectors `[B, P, D]`."""
        return self._assemble(self.patch_maps(images))

    def _own_grid(self) -> tuple[int, int]:
        """Rows and columns of patches that this device computes."""
        return rows.divided(self.grid[0]), self.grid[1]

    def _assemble(self, maps: list[Array]) -> Array:
        grid = self._own_grid()
        # Pooling over channels and resizing over positions commute: pool first, it is less.
        parts = [m if m.shape[1:3] == grid else resample.resize_bilinear(m, grid) for m in maps]
        return jnp.concatenate(parts, -1).reshape(parts[0].shape[0], grid[0] * grid[1], -1)

    def init_accumulator(self, capacity):
        return buffers.init_buffer(
            capacity,
            {
                "patches": (self.kept, self.dim),
                "projected": (self.kept, self.config.projection_dim),
            },
        )

    def accumulate(self, accumulator, images, index):
        embedding = self.embed(images)
        if self.kept < self.positions:
            # One random order for all images, gone on with from one to the next: after a few
            # images every position was taken equally often.
            places = (index[:, None] * self.kept + jnp.arange(self.kept)) % self.positions
            places = self.memory("position_order")[places]
            embedding = jnp.take_along_axis(embedding, places[..., None], 1)
        projection = self.memory("projection")
        projected = jnp.matmul(embedding, projection, precision=lax.Precision.HIGHEST)
        return buffers.append(accumulator, index, {"patches": embedding, "projected": projected})

    def finalize(self, accumulators, count, key, progress):
        rows = base.round_up(count, buffers.IMAGE_BUCKET)
        projected = buffers.collect(accumulators, "projected", rows)
        projected = jnp.asarray(projected.reshape(rows * self.kept, -1))
        picks = self.bank_rows(count)
        done = progress(picks, "coreset")
        chosen = coreset.k_center(projected, count * self.kept, picks, key, progress=done)
        del projected
        padded = np.resize(chosen, base.round_up(picks, BANK_BUCKET))
        bank = buffers.take_rows(accumulators, "patches", *np.divmod(padded, self.kept))
        center = bank[:picks].mean(0)
        return {
            "bank": bank - center,
            "bank_count": np.int32(picks),
            "center": center,  # distances by expansion cancel unless both sides are centred
        }

    def bank_rows(self, images: int) -> int:
        """Number of rows of the memory bank for `images` training images."""
        wanted = int(images * self.positions * self.config.coreset_ratio)
        return max(min(wanted, images * self.kept), 1)

    def trim_memory(self, variables):
        memory = variables["memory"]
        bank = memory["bank"][: int(memory["bank_count"])]
        return variables | {"memory": memory | {"bank": bank}}

    def __call__(self, images):
        bank, count = self.memory("bank"), self.memory("bank_count")
        plain = self.config.num_neighbors == 1 and not self.config.shard_bank
        norms = self._norms(bank) if plain else None

        def search(images):
            maps = self._centered(self.patch_maps(images))
            if self.config.shard_bank:
                distances = self._distances_to_parts(maps, bank, count)
            elif norms is not None:
                distances = self._nearest(maps, bank, count, norms)
            else:
                distances = self._mean_of_nearest(self._assemble(maps), bank, count)
            found = [distances]
            if self.config.reweight_neighbors:
                found.append(self._assemble(maps))
            grid = (images.shape[0], -1, self.grid[1])
            return [part.reshape(*grid, *part.shape[2:]) for part in found]

        grid, *embedding = rows.by_rows(search, images)
        anomaly_map = resample.upsample_and_smooth(grid, images.shape[1:3], self.config.sigma)
        scores = base.image_scores(grid, anomaly_map, self.config.image_score)
        if embedding:
            worst = grid.reshape(images.shape[0], -1).argmax(1)
            queries = embedding[0].reshape(images.shape[0], self.positions, -1)
            queries = jnp.take_along_axis(queries, worst[:, None, None], 1)[:, 0]
            valid = base.row_mask(bank.shape[0], count)
            scores = loops.each(lambda query: self._reweighted(query, bank, valid), queries)
        return base.Prediction(scores, anomaly_map)

    def _centered(self, maps: list[Array]) -> list[Array]:
        """Maps of which what is interpolated is centred as the bank is: weights add up to one."""
        ends = np.cumsum([part.shape[-1] for part in maps])[:-1]
        centers = jnp.split(self.memory("center"), ends)
        return [part - center for part, center in zip(maps, centers)]

    def _nearest(self, maps: list[Array], bank: Array, count: Array, norms: Array) -> Array:
        """Squared distances `[B, P]` to the nearest of the first `count` rows `[M, D]`.

        Image by image: the distance block of one image fits the cache.
        """

        def whole(maps, bank, count, norms):
            del norms
            valid = base.row_mask(bank.shape[0], count)
            return loops.each(
                lambda query: neighbors.nearest_squared_distance(query, bank, valid),
                self._assemble(maps),
            )

        def apart(maps, bank, count, norms):
            larger = maps[0].shape[1]
            if rows.count() > 1:  # what is enlarged needs the rows beside
                maps = [m if m.shape[1] == larger else rows.bordered(m, 1, 1) for m in maps]
            return loops.each(
                lambda maps: neighbors.nearest_of_maps(maps, bank, norms, count), maps
            )

        if convolution.as_written():
            return whole(maps, bank, count, norms)
        return lax.platform_dependent(maps, bank, count, norms, cpu=apart, default=whole)

    def _norms(self, bank: Array) -> Array:
        """Squared norms `[M]` of the bank, made once where variables are placed."""
        norms = functools.partial(jnp.sum, bank * bank, -1)
        if self.is_mutable_collection(TRANSFORMED):
            self.put_variable(TRANSFORMED, "bank_norms", norms())
        if self.has_variable(TRANSFORMED, "bank_norms"):
            return self.get_variable(TRANSFORMED, "bank_norms")
        return norms()

    def _mean_of_nearest(self, embedding: Array, bank: Array, count: Array) -> Array:
        """The mean squared distance `[B, P]` to `num_neighbors` rows."""
        valid = base.row_mask(bank.shape[0], count)

        def mean(query: Array):
            found, _ = neighbors.nearest(query, bank, self.config.num_neighbors, valid)
            usable = jnp.isfinite(found)  # a bank smaller than num_neighbors
            return jnp.where(usable, found, 0).sum(-1) / usable.sum(-1)

        return loops.each(mean, embedding)

    def _distances_to_parts(self, maps: list[Array], bank: Array, count: Array) -> Array:
        """Squared distances `[B, P]`; `bank` `[M / devices, D]` is this device's part of it.

        Every device meets the patches of all images, so that only minima are exchanged.
        """
        if rows.count() > 1:  # the rows beside are another device's after the exchange
            maps = [self._assemble(maps).reshape(maps[0].shape[0], *self._own_grid(), -1)]
        first = collectives.device_number() * bank.shape[0]
        own = jnp.clip(count - first, 0, bank.shape[0])
        maps = [collectives.gather_batch(part) for part in maps]
        distances = self._nearest(maps, bank, own, jnp.sum(bank * bank, -1))
        return collectives.own_minimum(distances)

    def _reweighted(self, query: Array, bank: Array, valid: Array) -> Array:
        """Image score of the paper (eq. 7) from the worst patch `[D]`: `w * |q - m*|`."""
        to_query = jnp.sqrt(jnp.sum((bank - query) ** 2, -1))
        nearest = jnp.argmin(jnp.where(valid, to_query, jnp.inf))
        to_nearest = jnp.where(valid, jnp.sum((bank - bank[nearest]) ** 2, -1), jnp.inf)
        _, around = lax.top_k(-to_nearest, min(self.config.reweight_neighbors, bank.shape[0]))
        exponents = jnp.where(valid[around], to_query[around], -jnp.inf)
        # softmax with the maximum subtracted: exp of a distance overflows otherwise
        share = jnp.exp(to_query[nearest] - jax.nn.logsumexp(exponents))
        return (1 - share) * to_query[nearest]

    def memory_estimate(self, images, devices):
        rows = base.round_up(images, buffers.IMAGE_BUCKET) * self.kept
        bank = base.round_up(self.bank_rows(images), BANK_BUCKET)
        held = 3 if self.config.shard_bank else devices + 2
        width, projected = self.dim, self.config.projection_dim
        batch = self.config.batch_size * self.positions
        return {
            "backbone": self.backbone_bytes() * devices,
            "patches of all images": rows * width * base.FLOAT,
            "projected patches": 3 * rows * projected * base.FLOAT,
            "memory bank": held * bank * width * base.FLOAT,
            "features of a batch": 4 * batch * width * base.FLOAT,
        }
