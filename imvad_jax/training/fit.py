"""Fits a detector: its phases in order, one loop for all methods."""

import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.data.batches import Images
from imvad_jax.errors import UserError
from imvad_jax.methods.base import Detector, Progress
from imvad_jax.methods.buffers import IMAGE_BUCKET
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings

IN_FLIGHT = 2  # batches dispatched ahead of the device


def silent_progress(total: int, label: str):
    """A progress display that shows nothing."""
    return lambda done: None


def as_float(images: jax.Array) -> jax.Array:
    """uint8 images as float32 in [0, 1], on the device."""
    return images.astype(jnp.float32) / 255


def init_variables(detector: Detector, backbone: dict | None, seed: int) -> dict:
    """Variables before the fit: pretrained backbone and the fixed random draws.

    `backbone`: collections `params` and `batch_stats`, or None for a method without one.
    """
    key = jax.random.fold_in(jax.random.key(seed), 0)
    memory = detector.apply({}, key, method="init_memory")
    variables = {"backbone": backbone} if backbone else {}
    return variables | ({"memory": memory} if memory else {})


def fit(
    detector: Detector,
    variables: dict,
    images: Images,
    parallel: Parallel,
    seed: int = 0,
    progress: Progress = silent_progress,
    timings: Timings | None = None,
) -> dict:
    """Runs the phases of `detector` on good images and returns its fitted variables.

    Raises:
      UserError: there are no images, or one cannot be read.
    """
    if not len(images):
        raise UserError("there are no good images to fit on")
    for phase in detector.phases:
        variables = _PHASES[phase](
            detector, variables, images, parallel, seed, progress, timings or Timings()
        )
    return variables


@functools.lru_cache(maxsize=8)
def _statistics_step(detector: Detector, devices: tuple):
    """The compiled step of a detector: shared by all categories, which differ in arrays only."""

    def step(accumulator, variables, images, index):
        accumulator = detector.apply(
            variables, accumulator, as_float(images), index, method="accumulate"
        )
        # The accumulator is donated to the next step; this is what the host may wait for.
        return accumulator, jnp.max(index)

    return Parallel(devices).compile(step, split=(True, False, True, True), donate=(0,))


@functools.lru_cache(maxsize=8)
def _empty_accumulator(detector: Detector, devices: tuple, capacity: int):
    return Parallel(devices).compile(
        lambda unused: detector.init_accumulator(capacity), split=(True,)
    )


def _statistics_phase(detector, variables, images, parallel, seed, progress, timings):
    batch_size = parallel.batch_size(detector.config.batch_size)
    capacity = -(-len(images) // IMAGE_BUCKET) * IMAGE_BUCKET
    per_device = -(-capacity // batch_size) * (batch_size // parallel.count)
    devices = tuple(parallel.devices)
    start = parallel.split(np.zeros(parallel.count, np.float32))
    accumulator = _empty_accumulator(detector, devices, per_device)(start)
    step = _statistics_step(detector, devices)
    replicated = parallel.replicate(variables)
    done = progress(len(images), "fit")
    in_flight = deque()
    for batch in timings.wait(images.batches(batch_size), "fit"):
        accumulator, token = step(
            accumulator, replicated, parallel.split(batch.images), parallel.split(batch.index)
        )
        in_flight.append((token, int(batch.valid.sum())))
        if len(in_flight) > IN_FLIGHT:
            token, count = in_flight.popleft()
            token.block_until_ready()
            done(count)
    for token, count in in_flight:
        token.block_until_ready()
        done(count)
    del replicated
    key = jax.random.fold_in(jax.random.key(seed), 1)
    # The method may release parts as it goes: hand over the only reference.
    parts = parallel.parts(accumulator)
    del accumulator
    memory = detector.apply(variables, parts, len(images), key, progress, method="finalize")
    return variables | {"memory": memory}


_PHASES = {"statistics": _statistics_phase}
