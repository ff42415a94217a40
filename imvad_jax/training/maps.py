"""The frozen backbone's maps of images, computed once for several fits.

Cross-validation fits and scores the same images many times; only the statistics differ.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from imvad_jax.data.batches import Images
from imvad_jax.methods import base, given_maps
from imvad_jax.methods.base import Detector, Progress
from imvad_jax.progress import silent_progress
from imvad_jax.training.features import compute_features
from imvad_jax.training.job import Job, as_float
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.transformed import with_transformed_backbone

MOST_BYTES = 2**30  # of the maps of all images; more are computed anew in every fit


class WithMaps(NamedTuple):
    """The images of a batch, and the maps of them by layer."""

    images: Any  # uint8 [B, H, W, 3]; like the maps an array of NumPy, then of JAX
    maps: dict[str, Any]  # float32 [B, h, w, C]


@contextlib.contextmanager
def opened(images: Array | WithMaps) -> Iterator[Array]:
    """While a step is traced: its images `[B, H, W, 3]` as floats, whose maps are known if given.

    Raises:
      OtherImages: the method needs features other than the given ones.
    """
    if not isinstance(images, WithMaps):
        yield as_float(images)
        return
    floats = as_float(images.images)
    with given_maps.given(floats, images.maps):
        yield floats


class MappedImages:
    """Images together with their maps: their batches hold `WithMaps`."""

    def __init__(self, images: Images, maps: dict[str, np.ndarray], numbers: np.ndarray):
        self._images, self._maps, self._numbers = images, maps, numbers

    def __len__(self) -> int:
        return len(self._images)

    def take(self, numbers) -> "MappedImages":
        """The images of these numbers; maps are not copied."""
        return MappedImages(self._images.take(numbers), self._maps, self._numbers[numbers])

    def batches(self, batch_size: int, order=None):
        """As `Images.batches`; the maps of padding are those of any image."""
        for batch in self._images.batches(batch_size, order):
            rows = self._numbers[np.maximum(batch.index, 0)]
            maps = {name: found[rows] for name, found in self._maps.items()}
            yield batch._replace(images=WithMaps(batch.images, maps))


def maps_bytes(detector: Detector, count: int) -> int:
    """Bytes of the maps of `count` images; 0 without a backbone, or for more than `MOST_BYTES`."""
    if not detector.outputs:
        return 0
    values = sum(int(np.prod(shape)) for shape in detector.feature_shapes().values())
    found = count * values * base.FLOAT
    return found if found <= MOST_BYTES else 0


def compute_maps(
    detector: Detector,
    variables: Mapping,
    images: Images,
    parallel: Parallel,
    progress: Progress = silent_progress,
) -> MappedImages:
    """Computes the maps of all images, in host memory (`maps_bytes`)."""
    parallel = parallel.here().dividing(detector.config.batch_size)
    placed = parallel.replicate(with_transformed_backbone(detector, dict(variables), parallel))
    job = Job(images, parallel, progress=progress)
    found = compute_features(detector, placed, job, method="features")
    return MappedImages(images, found.tree, np.arange(len(images)))
