"""Caches the frozen features of all training images, which every epoch reuses."""

import functools
from typing import Any

import jax
import numpy as np

from imvad_jax.data.batches import Batch
from imvad_jax.methods import base
from imvad_jax.methods.base import Detector
from imvad_jax.training.job import Job, as_float, in_flight
from imvad_jax.training.parallel import Parallel

BUCKET = 128  # rows round up to a multiple where programs depend on their number


def rounded_up(count: int) -> int:
    """Rounds a number of images up, where programs depend on it."""
    return base.round_up(count, BUCKET)


def filled_up(rows: np.ndarray) -> np.ndarray:
    """Pads `[N, ...]` with rows of zeros to `rounded_up(N)`; without padding, returns the array."""
    missing = rounded_up(len(rows)) - len(rows)
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


class Features:
    """A pytree of host arrays `[N, ...]` that is batched like images.

    N may exceed the number of images; the values of extra rows are arbitrary.
    """

    def __init__(self, tree: Any):
        self.tree = tree

    def batches(self, batch_size: int, order: np.ndarray):
        """Full batches in the given order; `images` holds the pytree."""
        for index in order.reshape(-1, batch_size):
            rows = jax.tree.map(lambda leaf, index=index: leaf[index], self.tree)
            yield Batch(rows, np.ones(batch_size, bool), index)


@functools.lru_cache(maxsize=64)
def _frozen_step(detector: Detector, devices: tuple, method: str = "frozen_features"):
    def step(fixed, images):
        return detector.apply(fixed, as_float(images), method=method)

    return Parallel(devices).compile(step, split=(False, True))


def compute_features(
    detector: Detector, fixed: dict, job: Job, method: str = "frozen_features"
) -> Features:
    """Computes the frozen features of all images, in host memory; `fixed` is on the devices.

    `method` of the detector gives them: a pytree of arrays `[B, ...]` for a batch of images.
    """
    parallel = job.parallel.dividing(detector.config.batch_size).here()
    step = _frozen_step(detector.compile_key(), tuple(parallel.devices), method)
    done = job.progress(len(job.images), "features")
    tree = None
    batch_size = parallel.batch_size(detector.config.batch_size)
    batches = job.timings.wait(job.images.batches(batch_size), "fit")
    for found, batch in in_flight(lambda batch: step(fixed, parallel.split(batch.images)), batches):
        found = jax.tree.map(parallel.join, found)
        if tree is None:
            # Rounded up, so that the device loop needs no copy; rows that are never written
            # use no memory.
            count = rounded_up(len(job.images))
            tree = jax.tree.map(
                lambda rows, count=count: np.empty((count, *rows.shape[1:]), rows.dtype), found
            )
        for kept, rows in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
            kept[batch.index[batch.valid]] = rows[batch.valid]
        done(int(batch.valid.sum()))
    return Features(tree)


def features_bytes(detector: Detector, images: int) -> int:
    """Size in bytes of the frozen features of `images` images."""
    return images * base.tree_bytes(base.frozen_shapes(detector.compile_key()))
