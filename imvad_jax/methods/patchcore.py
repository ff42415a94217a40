"""PatchCore: nearest-neighbour distance to a coreset of patch features of good images.

Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022, arXiv 2106.08265.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.errors import UserError
from imvad_jax.methods import base, buffers
from imvad_jax.ops import coreset, neighbors, patches, resample

BANK_BUCKET = 1024  # bank rows are rounded up to this, so that categories share programs


@dataclasses.dataclass(frozen=True)
class PatchCoreConfig(base.DetectorConfig):
    """Settings of PatchCore, names as in the official code where it has them."""

    layers: tuple[str, ...] = ("layer2", "layer3")
    patch_size: int = 3
    embedding_dim: int = 1024  # values a patch after the two adaptive pools
    coreset_ratio: float = 0.1  # share of the training patches kept
    projection_dim: int = 128  # of the random projection in which the coreset is picked
    num_neighbors: int = 1  # squared distances to so many neighbours are averaged
    reweight_neighbors: int = 0  # b of the paper's re-weighting (eq. 7); 0: as the official code
    sigma: float = 4.0  # of the Gaussian that smooths the map, pixels

    def __post_init__(self):
        if not 0 < self.coreset_ratio <= 1:
            raise UserError(f"--coreset_ratio={self.coreset_ratio}: must lie in (0, 1]")
        if self.num_neighbors < 1:
            raise UserError(f"--num_neighbors={self.num_neighbors}: must be at least 1")


class PatchCore(base.Detector):
    """PatchCore (Roth et al., 2022), exact to the official code by default."""

    config: PatchCoreConfig

    @property
    def outputs(self):
        return self.config.layers

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patch grid, that of the first layer."""
        return self.feature_shapes()[self.config.layers[0]][:2]

    def init_memory(self, key):
        # torch's default start of a linear layer, which the official projection is.
        bound = self.config.embedding_dim**-0.5
        shape = (self.config.embedding_dim, self.config.projection_dim)
        return {"projection": jax.random.uniform(key, shape, minval=-bound, maxval=bound)}

    def embed(self, images: Array) -> Array:
        """Patch vectors `[B, P, embedding_dim]`."""
        grid = self.grid
        maps = self.features(images)
        channels = tuple(maps[name].shape[-1] for name in self.config.layers)
        kernels = patches.patch_kernels(
            channels, self.config.embedding_dim, self.config.patch_size
        )
        parts = []
        for name, kernel in zip(self.config.layers, kernels):
            part = patches.aggregate_patches(maps[name], kernel)
            # Pooling over channels and resizing over positions commute: pool first, it is less.
            parts.append(part if part.shape[1:3] == grid else resample.resize_bilinear(part, grid))
        stacked = jnp.concatenate(parts, -1)
        return stacked.reshape(images.shape[0], grid[0] * grid[1], -1)

    def init_accumulator(self, capacity):
        positions = self.grid[0] * self.grid[1]
        return buffers.init_buffer(
            capacity,
            {
                "patches": (positions, self.config.embedding_dim),
                "projected": (positions, self.config.projection_dim),
            },
        )

    def accumulate(self, accumulator, images, index):
        embedding = self.embed(images)
        projection = self.memory("projection")
        projected = jnp.matmul(embedding, projection, precision=lax.Precision.HIGHEST)
        return buffers.append(accumulator, index, {"patches": embedding, "projected": projected})

    def finalize(self, accumulators, count, key, progress):
        positions = self.grid[0] * self.grid[1]
        rows = base.round_up(count, buffers.IMAGE_BUCKET)
        projected = buffers.collect(accumulators, "projected", rows)
        projected = jnp.asarray(projected.reshape(rows * positions, -1))
        picks = self.bank_rows(count)
        done = progress(picks, "coreset")
        chosen = coreset.k_center(projected, count * positions, picks, key, done)
        del projected
        padded = np.resize(chosen, base.round_up(picks, BANK_BUCKET))
        bank = buffers.take_rows(accumulators, "patches", *np.divmod(padded, positions))
        center = bank[:picks].mean(0)
        return {
            "bank": bank - center,
            "bank_count": np.int32(picks),
            "center": center,  # distances by expansion cancel unless both sides are centred
        }

    def bank_rows(self, images: int) -> int:
        """Rows of the memory bank for so many training images."""
        return max(int(images * self.grid[0] * self.grid[1] * self.config.coreset_ratio), 1)

    def without_padding(self, variables):
        memory = variables["memory"]
        bank = memory["bank"][: int(memory["bank_count"])]
        return variables | {"memory": memory | {"bank": bank}}

    def __call__(self, images):
        bank = self.memory("bank")
        valid = base.row_mask(bank.shape[0], self.memory("bank_count"))
        embedding = self.embed(images) - self.memory("center")

        def score(query: Array):
            if self.config.num_neighbors == 1:
                distances = neighbors.nearest_squared_distance(query, bank, valid)
            else:
                found, _ = neighbors.nearest(query, bank, self.config.num_neighbors, valid)
                usable = jnp.isfinite(found)  # a bank smaller than num_neighbors
                distances = jnp.where(usable, found, 0).sum(-1) / usable.sum(-1)
            if self.config.reweight_neighbors:
                return distances, self._reweighted(query[distances.argmax()], bank, valid)
            return distances, distances.max()

        # One image after the other: the distance block of one image fits the cache.
        distances, scores = lax.map(score, embedding)
        grid = distances.reshape(images.shape[0], *self.grid)
        anomaly_map = resample.upsample_and_smooth(grid, images.shape[1:3], self.config.sigma)
        return base.Prediction(scores, anomaly_map)

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
        positions = self.grid[0] * self.grid[1]
        rows = base.round_up(images, buffers.IMAGE_BUCKET) * positions
        bank = base.round_up(self.bank_rows(images), BANK_BUCKET)
        width, projected = self.config.embedding_dim, self.config.projection_dim
        batch = self.config.batch_size * positions
        return {
            "backbone": self.backbone_bytes() * devices,
            "patches of all images": rows * width * base.FLOAT,
            "projected patches": 2 * rows * projected * base.FLOAT,
            "memory bank": (devices + 2) * bank * width * base.FLOAT,
            "features of a batch": 4 * batch * width * base.FLOAT,
        }
