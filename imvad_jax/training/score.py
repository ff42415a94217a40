"""Scores images with a fitted detector: one compiled program for all batches."""

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from imvad_jax.data.batches import Images
from imvad_jax.methods.base import Detector, Progress
from imvad_jax.training import hosts
from imvad_jax.training.job import as_float, in_flight, silent_progress
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings

B = TypeVar("B")  # a kind of batch


class Scores(NamedTuple):
    """Image scores float32 `[N]`; maps float32 `[N, H, W]`, or None for image-only methods."""

    image: np.ndarray
    maps: np.ndarray | None


@functools.lru_cache(maxsize=64)
def scoring_step(detector: Detector, devices: tuple):
    """The compiled scoring function `(*placed variables, uint8 images) -> Prediction`.

    Its first arguments are what `place` gives.
    """

    def step(variables, images):
        return detector.apply(variables, as_float(images))

    def step_of_parts(variables, parts, images):
        return step(variables | {"memory": variables["memory"] | parts}, images)

    if detector.shared_out:
        return Parallel(devices).compile(step_of_parts, split=(False, True, True))
    return Parallel(devices).compile(step, split=(False, True))


def place(detector: Detector, variables: dict, parallel: Parallel) -> tuple[dict, ...]:
    """The variables on the devices: those that each holds and, where there are any, those arrays of
    the memory of which each holds a part."""
    names = detector.shared_out
    if not names:
        return (parallel.replicate(variables),)
    memory = variables["memory"]
    rest = {name: value for name, value in memory.items() if name not in names}
    parts = {name: parallel.share_out(memory[name]) for name in names}
    return parallel.replicate(variables | {"memory": rest}), parts


def score_batches(
    detector: Detector, variables: dict, batches: Iterable[B], parallel: Parallel
) -> Iterator[tuple[Scores, B]]:
    """Scores batches as they come, in order; each is given back with the scores of all its rows.

    Two batches are in flight: while one is computed the next is read and the last one handed out.

    Args:
      batches: Anything with `images`, uint8 `[B, H, W, 3]`, always of one shape; B a multiple of
        the number of devices.
      parallel: Devices of this host.
    """
    step = scoring_step(detector.without_epochs(), tuple(parallel.devices))
    placed = place(detector, variables, parallel)
    for (score, maps), batch in in_flight(
        lambda batch: step(*placed, parallel.split(batch.images)), batches
    ):
        yield Scores(parallel.join(score), None if maps is None else parallel.join(maps)), batch


def score(
    detector: Detector,
    variables: dict,
    images: Images,
    parallel: Parallel,
    batch_size: int | None = None,
    progress: Progress = silent_progress,
    timings: Timings | None = None,
) -> Scores:
    """Scores all images, in order; of several hosts each its share, and all get the whole.

    Raises:
      UserError: an image cannot be read; it is named.
    """
    timings = timings or Timings()
    parallel = parallel.here()
    batch_size = parallel.batch_size(batch_size or detector.config.batch_size)
    order = hosts.equal_share(len(images))
    done = progress(len(order), "score")
    scores = np.zeros(len(order), np.float32)
    maps = None
    finished = 0
    batches = timings.wait(images.batches(batch_size, order), "score")
    for found, batch in score_batches(detector, variables, batches, parallel):
        rows = slice(finished, finished + int(batch.valid.sum()))
        finished = rows.stop
        scores[rows] = found.image[batch.valid]
        if found.maps is not None:
            if maps is None:
                maps = np.zeros((len(order), *found.maps.shape[1:]), np.float32)
            maps[rows] = found.maps[batch.valid]
        done(rows.stop - rows.start)
    return jax.tree.map(
        lambda rows: hosts.gather(rows).reshape(-1, *rows.shape[1:])[: len(images)],
        Scores(scores, maps),
    )
