"""SPADE: finds the nearest good images, then for each pixel the nearest of their features.

Cohen, Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", arXiv 2005.02357.

What it learns: Nothing is trained: the features of all good images are kept. The score is the
distance to the nearest good images; the map is the distance of each pixel's features to the nearest
among those of these images.

When to use it: There are some dozens of good images and fine maps matter: its pixel AP on screws is
as high as that of PatchCore.

When not: The verdict on whole images matters, or there are many good images: its image AUROC on
screws is far below that of PatchCore, and every good image is kept with its feature maps and looked
through.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array

from imvad_jax.errors import UserError, choose
from imvad_jax.methods import base, buffers
from imvad_jax.ops import loops, neighbors, resample, rows
from imvad_jax.ops.sums import total

IMAGE_SCORES = ("neighbors", "map")


@dataclasses.dataclass(frozen=True)
class SPADEConfig(base.DetectorConfig):
    """Settings of SPADE."""

    # Backbone layers whose features are compared pixel by pixel.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # Layer whose global average finds the nearest training images.
    pooled_layer: str = "layer4"
    # K: number of nearest training images; 50 in the paper, 5 in the code behind the published
    # table.
    num_neighbors: int = 5
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0
    # Image score: neighbors (mean distance to the K nearest images, as in the paper) or map
    # (largest value of the smoothed map).
    image_score: str = "neighbors"

    def __post_init__(self):
        super().__post_init__()
        choose("--image_score", self.image_score, IMAGE_SCORES)
        if self.num_neighbors < 1:
            raise UserError(f"--num_neighbors={self.num_neighbors}: must be at least 1")

    def without_missing_layers(self):
        if self.pooled_layer != "layer4":
            return None
        return dataclasses.replace(self, pooled_layer="layer3")


class SPADE(base.Detector[SPADEConfig]):
    """SPADE (Cohen, Hoshen, 2020). By default the image score does not use the map."""

    config: SPADEConfig
    all_by_rows = True

    @property
    def outputs(self):
        return tuple(dict.fromkeys((*self.config.layers, self.config.pooled_layer)))

    def _pooled(self, maps: dict[str, Array]) -> Array:
        return maps[self.config.pooled_layer].mean((1, 2))

    def init_accumulator(self, capacity):
        shapes = self.feature_shapes()
        rows: dict[str, tuple[int, ...]] = {
            name: (shapes[name][0] * shapes[name][1], shapes[name][2])
            for name in self.config.layers
        }
        rows["pooled"] = shapes[self.config.pooled_layer][2:]
        return buffers.init_buffer(capacity, rows)

    def accumulate(self, accumulator, images, index):
        maps = self.features(images)
        rows = {
            name: maps[name].reshape(images.shape[0], -1, maps[name].shape[-1])
            for name in self.config.layers
        }
        rows["pooled"] = self._pooled(maps)
        return buffers.append(accumulator, index, rows)

    def finalize(self, accumulators, count, key, progress):
        rows = base.round_up(count, buffers.IMAGE_BUCKET)
        memory: dict = {"count": np.int32(count)}
        for name in (*self.config.layers, "pooled"):
            gallery = buffers.collect(accumulators, name, rows)
            # Distances by expansion cancel unless both sides are centred.
            center = gallery[:count].mean(tuple(range(gallery.ndim - 1)))
            gallery -= center
            memory[name] = gallery
            memory[f"{name}_center"] = center
        return memory

    def trim_memory(self, variables):
        memory = dict(variables["memory"])
        for name in (*self.config.layers, "pooled"):
            memory[name] = memory[name][: int(memory["count"])]
        return variables | {"memory": memory}

    def __call__(self, images):
        maps = self.features(images)
        memory = {name: self.memory(name) for name in (*self.config.layers, "pooled")}
        centers = {name: self.memory(f"{name}_center") for name in memory}
        count = self.memory("count")
        # Few-shot: with fewer images than K, all of them are neighbours.
        k = min(self.config.num_neighbors, memory["pooled"].shape[0])
        distances, nearest = neighbors.nearest(
            self._pooled(maps) - centers["pooled"], memory["pooled"], k,
            base.row_mask(memory["pooled"].shape[0], count),
        )  # fmt: skip
        found = nearest >= 0
        scores = jnp.where(found, jnp.sqrt(distances), 0).sum(1) / found.sum(1)

        def distances_of(name: str, features: Array) -> Array:
            batch, height, width, channels = features.shape
            queries = features.reshape(batch, -1, channels) - centers[name]

            def one(arguments):
                query, images_found = arguments
                gallery = memory[name][images_found].reshape(-1, channels)
                valid = jnp.repeat(images_found >= 0, memory[name].shape[1])
                return jnp.sqrt(neighbors.nearest_squared_distance(query, gallery, valid))

            return loops.each(one, (queries, nearest)).reshape(batch, height, width)

        def layer_map(name: str) -> Array:
            grid = rows.by_rows(lambda features: distances_of(name, features), maps[name])
            return resample.upsample_and_smooth(grid, images.shape[1:3], self.config.sigma)

        # Smoothing is linear, so it may stand inside the mean over the layers.
        layers = [layer_map(name) for name in self.config.layers]
        anomaly_map = total(layers) / len(layers)
        if self.config.image_score == "map":
            scores = anomaly_map.max((1, 2))
        return base.Prediction(scores, anomaly_map)

    def memory_estimate(self, images, devices):
        shapes = self.feature_shapes()
        per_image = sum(int(np.prod(shapes[name])) for name in self.config.layers)
        rows = base.round_up(images, buffers.IMAGE_BUCKET)
        gallery = rows * per_image * base.FLOAT
        batch = self.config.batch_size * per_image * base.FLOAT
        return {
            "backbone": self.backbone_bytes() * devices,
            "features of all images while fitting": gallery,
            "gallery, one per device and one on the host": (devices + 1) * gallery,
            "features of a batch": 3 * batch,
            "neighbours' features": devices * self.config.num_neighbors * per_image * base.FLOAT,
        }
