"""What a training computes from the images and does not change, once for all epochs."""

import functools
from collections import deque
from typing import Any

import jax
import numpy as np

from imvad_jax.data.batches import Batch
from imvad_jax.methods.base import Detector
from imvad_jax.training.job import IN_FLIGHT, Job, as_float
from imvad_jax.training.parallel import Parallel


class Features:
    """A pytree of host arrays `[N, ...]`, given out in batches as images are."""

    def __init__(self, tree: Any):
        self.tree = tree

    def batches(self, batch_size: int, order: np.ndarray):
        """Full batches in the given order; `images` holds the pytree."""
        for index in order.reshape(-1, batch_size):
            rows = jax.tree.map(lambda leaf, index=index: leaf[index], self.tree)
            yield Batch(rows, np.ones(batch_size, bool), index)


@functools.lru_cache(maxsize=64)
def _frozen_step(detector: Detector, devices: tuple):
    def step(fixed, images):
        return detector.apply(fixed, as_float(images), method="frozen")

    return Parallel(devices).compile(step, split=(False, True))


def compute_features(detector: Detector, fixed: dict, job: Job) -> Features:
    """`detector.frozen` of all images, in host memory; `fixed` lies on the devices of this host."""
    parallel = job.parallel.dividing(detector.config.batch_size).here()
    step = _frozen_step(detector.without_epochs(), tuple(parallel.devices))
    done = job.progress(len(job.images), "features")
    tree, in_flight = None, deque()

    def receive():
        nonlocal tree
        found, batch = in_flight.popleft()
        found = jax.tree.map(lambda leaf: parallel.join(leaf)[batch.valid], found)
        if tree is None:
            tree = jax.tree.map(
                lambda leaf: np.empty((len(job.images), *leaf.shape[1:]), leaf.dtype), found
            )
        for kept, rows in zip(jax.tree.leaves(tree), jax.tree.leaves(found), strict=True):
            kept[batch.index[batch.valid]] = rows
        done(int(batch.valid.sum()))

    batch_size = parallel.batch_size(detector.config.batch_size)
    for batch in job.timings.wait(job.images.batches(batch_size), "fit"):
        in_flight.append((step(fixed, parallel.split(batch.images)), batch))
        if len(in_flight) > IN_FLIGHT:
            receive()
    while in_flight:
        receive()
    return Features(tree)
