"""The statistics phase: what is gathered from good images in one pass, compiled, on all devices."""

import functools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.methods.base import Detector
from imvad_jax.methods.buffers import IMAGE_BUCKET
from imvad_jax.training import hosts
from imvad_jax.training.job import IN_FLIGHT, Job
from imvad_jax.training.maps import MappedImages, opened
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.transformed import with_transformed_backbone


@functools.lru_cache(maxsize=64)
def _statistics_step(detector: Detector, devices: tuple):
    """The compiled step of a detector: shared by all categories, which differ in arrays only."""

    def step(accumulator, variables, images, index):
        with opened(images) as images:
            accumulator = detector.apply(variables, accumulator, images, index, method="accumulate")
        # The accumulator is donated to the next step; this is what the host may wait for.
        return accumulator, jnp.max(index)

    return Parallel(devices).compile(step, split=(True, False, True, True), donate=(0,))


@functools.lru_cache(maxsize=64)
def _empty_accumulator(detector: Detector, devices: tuple, capacity: int):
    return Parallel(devices).compile(
        lambda unused: detector.init_accumulator(capacity), split=(True,)
    )


@functools.lru_cache(maxsize=64)
def _flush(detector: Detector, devices: tuple):
    def close(accumulator):
        return detector.apply({}, accumulator, method="flush")

    return Parallel(devices).compile(close, split=(True,), donate=(0,))


def statistics_phase(detector: Detector, variables: dict, job: Job) -> dict:
    """Streams the good images through `accumulate` and returns the variables with their memory.

    Of several hosts each streams its share; all of them then finish what all have gathered.
    """
    images, parallel = job.images, job.parallel.here()
    order = hosts.own(len(images))
    batch_size = parallel.batch_size(detector.config.batch_size)
    largest = -(-len(images) // hosts.count())  # share of a host
    capacity = -(-largest // IMAGE_BUCKET) * IMAGE_BUCKET
    per_device = -(-capacity // batch_size) * (batch_size // parallel.count)
    devices = tuple(parallel.devices)
    start = parallel.split(np.zeros(parallel.count, np.float32))
    accumulator = _empty_accumulator(detector.compile_key(), devices, per_device)(start)
    step = _statistics_step(detector.compile_key(), devices)
    ready = variables
    if not isinstance(images, MappedImages):  # of those the backbone computes nothing
        ready = with_transformed_backbone(detector, variables, parallel)
    replicated = parallel.replicate(ready)
    done = job.progress(len(order), "fit")
    in_flight = deque()
    for batch in job.timings.wait(images.batches(batch_size, order), "fit"):
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
    if type(detector).flush is not Detector.flush:
        accumulator = _flush(detector.compile_key(), devices)(accumulator)
    key = jax.random.fold_in(jax.random.key(job.seed), 1)
    # The method may release parts as it goes: hand over the only reference.
    parts = parallel.parts(accumulator)
    del accumulator
    parts = hosts.gather_parts(parts)
    memory = detector.apply(variables, parts, len(images), key, job.progress, method="finalize")
    return variables | {"memory": memory}
