"""The training loop on the devices: all images lie there, and one call takes many steps.

An epoch is a call, or a few calls of about `SECONDS` each, between which the host looks at the
limit of time and at signals, as it does between the steps of its own loop.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imvad_jax.data.batches import ArrayImages
from imvad_jax.training import hosts
from imvad_jax.training.features import Features, filled_up
from imvad_jax.training.job import Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.watch import Watch

CAPACITY = 256  # steps of a call at most
SECONDS = 2.0  # that a call is to take at most


def compile_loop(step: Callable, devices: tuple) -> Callable:
    """The loop over a training step, compiled: `(state, fixed, images, order, count, key, steps)`.

    It gives `(state, figures)`. `images` is a pytree of arrays `[N, ...]`. `order`, int32
    `[B, CAPACITY]`, holds in each column the numbers of the images of a step; the first `count` of
    them are taken, and as many of the `figures`, `[CAPACITY]` each, are theirs. `count` is an
    argument and no constant, so that one program serves calls of any length. Donates the state.
    """

    def loop(state, fixed, images, order, count, key, steps):
        traced_once = jax.jit(step)  # its shapes are asked for, too

        def take(number, state):
            rows = lax.dynamic_index_in_dim(order, number, axis=1, keepdims=False)
            batch = jax.tree.map(lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), images)
            return traced_once(state, fixed, batch, key, steps)

        def advance(number, carried):
            state, figures = carried
            state, found = take(number, state)
            put = functools.partial(lax.dynamic_update_index_in_dim, index=number, axis=0)
            return state, jax.tree.map(put, figures, found)

        first = jnp.zeros((), jnp.int32)
        _, shapes = jax.eval_shape(take, first, state)
        figures = jax.tree.map(lambda leaf: jnp.zeros(CAPACITY, leaf.dtype), shapes)
        return lax.fori_loop(first, count, advance, (state, figures))

    split = (False, False, False, True, False, False, False)
    return Parallel(devices).compile(loop, split, donate=(0,), joined=True)


def on_devices(images: ArrayImages | Features, parallel: Parallel) -> Any:
    """The images uint8 `[N, H, W, 3]`, or the arrays of kept features, on every device.

    Any device may need any image, as an epoch's order is one over all images. N is rounded up, so
    that categories share programs; the rows that this adds are never taken.
    """
    if isinstance(images, Features):
        tree = images.tree
    else:
        tree = images.images
        tree = np.repeat(tree, 3 // tree.shape[-1], axis=-1)  # as batches of grey images have it
    return parallel.replicate(jax.tree.map(filled_up, tree))


class DeviceLoop:
    """Takes the steps of epochs by a compiled loop (`compile_loop`).

    The first call is of one step. From then on a call takes as many as are expected to take
    `SECONDS`; of several hosts, none of which may stop within an epoch, as many as a call can.
    """

    def __init__(
        self, program: Callable, images: Any, fixed: Any, key: jax.Array, steps: np.int32, job: Job
    ):
        self._call = lambda state, order, count: program(
            state, fixed, images, order, count, key, steps
        )
        self._clock = job.limit.clock
        self._length = 1 if hosts.count() == 1 else CAPACITY

    def run(
        self, state: Any, order: np.ndarray, parallel: Parallel, watch: Watch
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """One epoch: its end state, and the figures of its steps, `[steps]` each.

        `order` is that of the epoch, int32 `[steps, B]`, this host's part of every batch. It is
        given and not drawn by the program, so that both loops have the same one for a few kB.
        """
        figures, first = [], 0
        while first < len(order):
            start, part = self._clock(), order[first : first + self._length]
            columns = np.zeros((part.shape[1], CAPACITY), np.int32)
            columns[:, : len(part)] = part.T
            state, found = self._call(state, parallel.split(columns), np.int32(len(part)))
            found = jax.device_get(found)  # waits for the devices
            figures.append({name: values[: len(part)] for name, values in found.items()})
            first += len(part)
            self._adapt((self._clock() - start) / len(part))
            watch.step(len(part))
        return state, {name: np.concatenate([f[name] for f in figures]) for name in figures[0]}

    def _adapt(self, seconds: float) -> None:
        """A step has taken so long."""
        if hosts.count() == 1:
            self._length = int(np.clip(SECONDS / max(seconds, 1e-9), 1, CAPACITY))
