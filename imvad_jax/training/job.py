"""State shared by the phases of a fit: images, devices, progress, time limit."""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from imvad_jax.data.batches import Images
from imvad_jax.methods.base import Progress
from imvad_jax.progress import silent_progress
from imvad_jax.training.checkpoint import TrainingCheckpoints
from imvad_jax.training.limit import NO_LIMIT, Limit
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import Timings

IN_FLIGHT = 2  # batches dispatched ahead of the device

B = TypeVar("B")  # a batch


def as_float(images: jax.Array) -> jax.Array:
    """uint8 images as float32 in [0, 1], on the device."""
    return images.astype(jnp.float32) / 255


def in_flight(step: Callable[[B], Any], batches: Iterable[B]) -> Iterator[tuple[Any, B]]:
    """Yields the result of `step` and the batch, in order; `IN_FLIGHT` steps stay ahead."""
    waiting = deque()
    for batch in batches:
        waiting.append((step(batch), batch))
        if len(waiting) > IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


@dataclasses.dataclass
class Job:
    """The images, the devices, and the callbacks of a fit.

    `on_epoch(epoch, metrics)` is called after each epoch of a gradient phase with the mean loss and
    what else the method reports; epochs count from 1. `checkpoints` is where the phase saves itself
    and resumes from; None: nowhere. `limit` is asked before each epoch. `training_loop` is one of
    `loops.LOOPS`: which loop takes the steps of a gradient phase.
    """

    images: Images
    parallel: Parallel
    seed: int = 0
    progress: Progress = silent_progress
    timings: Timings = dataclasses.field(default_factory=Timings)
    checkpoints: TrainingCheckpoints | None = None
    limit: Limit = NO_LIMIT
    training_loop: str = "auto"
    on_epoch: Callable[[int, dict[str, float]], None] = lambda epoch, metrics: None
