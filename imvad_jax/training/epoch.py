"""One epoch of training, run by a loop on the host or by a loop on the devices.

The host loop calls the compiled step once per batch, with two batches in flight. For the device
loop all images are on the devices, and one call runs many steps: an epoch is one call, or several
of about `SECONDS` each. Between calls the host checks the time limit and signals, as it does
between the steps of its own loop.
"""

import functools
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.training import hosts
from imvad_jax.training.features import Features, filled_up
from imvad_jax.training.job import IN_FLIGHT, Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.watch import Watch

CAPACITY = 256  # steps of a call at most
SECONDS = 2.0  # that a call is to take at most

# The end state of an epoch, and the metrics of its steps, `[steps]` each.
Run = tuple[Any, dict[str, np.ndarray]]


class HostLoop:
    """Calls `step(state, batch) -> (state, metrics)` once a batch of the images."""

    def __init__(self, step: Callable, images: Images | Features, parallel: Parallel, job: Job):
        self._step, self._images, self._parallel = step, images, parallel
        self._timings = job.timings

    def run(self, state: Any, order: np.ndarray, watch: Watch) -> Run:
        """Runs one epoch; the host reads its metrics only at the end.

        `order` is that of the epoch, int32 `[steps, B]`, this host's part of every batch.
        """
        batches = self._images.batches(order.shape[1], order.ravel())
        metrics, in_flight = [], deque()
        for batch in self._timings.wait(batches, "fit"):
            state, found = self._step(state, self._parallel.split(batch.images))
            metrics.append(found)
            in_flight.append(found["loss"])
            if len(in_flight) > IN_FLIGHT:
                in_flight.popleft().block_until_ready()
                watch.step()
        metrics = jax.device_get(metrics)
        return state, {name: np.array([f[name] for f in metrics]) for name in metrics[0]}


def compile_loop(step: Callable, devices: tuple) -> Callable:
    """Compiles the loop over a step: `(state, given, order, count) -> (state, metrics)`.

    `given` holds what the step takes besides, `fixed`, `key` and `steps`, and `images`, a pytree of
    arrays `[N, ...]`. `order`, int32 `[B, CAPACITY]`, holds in each column the numbers of the
    images of a step; the first `count` of them are taken, and as many of the `metrics`,
    `[CAPACITY]` each, are theirs. `count` is an argument and no constant, so that one program
    serves calls of any length. Donates the state.
    """

    def loop(state, given, order, count):
        traced_once = jax.jit(step)  # its shapes are needed as well

        def take(number, state):
            rows = lax.dynamic_index_in_dim(order, number, axis=1, keepdims=False)
            batch = jax.tree.map(
                lambda leaf: leaf.at[rows].get(mode="promise_in_bounds"), given["images"]
            )
            return traced_once(state, given["fixed"], batch, given["key"], given["steps"])

        def advance(number, carried):
            state, metrics = carried
            state, found = take(number, state)
            put = functools.partial(lax.dynamic_update_index_in_dim, index=number, axis=0)
            return state, jax.tree.map(put, metrics, found)

        first = jnp.zeros((), jnp.int32)
        _, shapes = jax.eval_shape(take, first, state)
        metrics = jax.tree.map(lambda leaf: jnp.zeros(CAPACITY, leaf.dtype), shapes)
        return lax.fori_loop(first, count, advance, (state, metrics))

    split = (False, False, True, False)
    return Parallel(devices).compile(loop, split, donate=(0,), joined=True)


def on_devices(images: ArrayImages | Features, parallel: Parallel) -> Any:
    """Copies the images, uint8 `[N, H, W, 3]`, or the cached features to every device.

    Any device may need any image, because an epoch's order covers all images. N is rounded up, so
    that categories share programs; the rows that this adds are never taken.
    """
    if isinstance(images, Features):
        tree = images.tree
    else:
        tree = images.images
        tree = np.repeat(tree, 3 // tree.shape[-1], axis=-1)  # as in batches of grey images
    return parallel.replicate(jax.tree.map(filled_up, tree))


class DeviceLoop:
    """Takes the steps of epochs by a compiled loop; `given` is what `compile_loop` says.

    The first call is of one step. From then on a call takes as many as are expected to take
    `SECONDS`; of several hosts, none of which may stop within an epoch, as many as a call can.
    """

    def __init__(self, program: Callable, given: dict, parallel: Parallel, job: Job):
        self._program, self._given, self._parallel = program, given, parallel
        self._clock = job.limit.clock
        self._length = 1 if hosts.count() == 1 else CAPACITY

    def run(self, state: Any, order: np.ndarray, watch: Watch) -> Run:
        """As `HostLoop.run`.

        The order is given and not drawn by the program, so that both loops have the same one; it
        is a few kB.
        """
        metrics, first = [], 0
        while first < len(order):
            start, part = self._clock(), order[first : first + self._length]
            columns = np.zeros((part.shape[1], CAPACITY), np.int32)
            columns[:, : len(part)] = part.T
            columns, count = self._parallel.split(columns), np.int32(len(part))
            state, found = self._program(state, self._given, columns, count)
            found = jax.device_get(found)  # waits for the devices
            metrics.append({name: values[: len(part)] for name, values in found.items()})
            first += len(part)
            self._adapt((self._clock() - start) / len(part))
            watch.step(len(part))
        return state, {name: np.concatenate([f[name] for f in metrics]) for name in metrics[0]}

    def _adapt(self, seconds: float) -> None:
        """Adapts the number of steps per call to the time that a step took."""
        if hosts.count() == 1:
            self._length = int(np.clip(SECONDS / max(seconds, 1e-9), 1, CAPACITY))
