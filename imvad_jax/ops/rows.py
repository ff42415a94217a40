"""Splits images by rows, so that several devices share the computation of one image.

A program that all devices run on the same images (`shared`) passes `by_rows` a function that can be
computed for a part of the rows. Inside it, convolutions and poolings fetch the few rows around a
device's own from its neighbours (`bordered`); operations on single positions need no change.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops.collectives import AXIS

WHOLE, SHARED, SPLIT = "whole", "shared", "split"
_STATE = contextvars.ContextVar("rows", default=WHOLE)
_USES: contextvars.ContextVar[list] = contextvars.ContextVar("uses of by_rows")


class Indivisible(Exception):
    """Found while tracing: the devices do not divide the rows of a map, or not at its stride; or
    nothing was there to divide."""


@contextlib.contextmanager
def _state(name: str) -> Iterator[None]:
    token = _STATE.set(name)
    try:
        yield
    finally:
        _STATE.reset(token)


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Marks code traced in the context as run on all devices, under pmap, with the same images.

    Raises:
      Indivisible: at the end, if none of it went through `by_rows`.
    """
    token = _USES.set([])
    try:
        with _state(SHARED):
            yield
        if not _USES.get():
            raise Indivisible("no part is computed by rows")
    finally:
        _USES.reset(token)


def whole() -> contextlib.AbstractContextManager[None]:
    """What is traced within sees all rows; for shapes that are looked up amid a split."""
    return _state(WHOLE)


def count() -> int:
    """The number of devices that share the rows of what is being traced; 1 where all are here."""
    return lax.axis_size(AXIS) if _STATE.get() == SPLIT else 1


def by_rows(function: Callable[[Array], Any], images: Array) -> Any:
    """`function(images)`, each device computing its part of the rows where the work is shared.

    Args:
      function: Takes `[B, H, W, C]` and gives a pytree of maps `[B, h, w, ...]`, h a fixed share of
        H; of this module's functions alone it learns of other rows. Indivisible where they do not.
      images: `[B, H, W, C]`, the same on all devices.
    """
    if _STATE.get() != SHARED:
        return function(images)
    devices = lax.axis_size(AXIS)
    own = images.shape[1] // devices
    if images.shape[1] % devices:
        raise Indivisible(f"{images.shape[1]} rows, {devices} devices")
    _USES.get().append(images.shape)
    with _state(SPLIT):
        images = lax.dynamic_slice_in_dim(images, lax.axis_index(AXIS) * own, own, 1)
        return jax.tree.map(gather, function(images))


def gather(x: Array) -> Array:
    """All rows `[B, H, ...]` of a map of which this device has `[B, H / devices, ...]`."""
    return lax.all_gather(x, AXIS, axis=1, tiled=True) if count() > 1 else x


def exchange(x: Array) -> Array:
    """This device's rows and all channels `[B, H / devices, W, devices * C]` of a map.

    Each device gives some channels of all rows, `[B, H, W, C]`, the first device the first ones.
    """
    return lax.all_to_all(x, AXIS, split_axis=1, concat_axis=3, tiled=True) if count() > 1 else x


def own_rows(x: Array) -> Array:
    """This device's part of the rows of a matrix `[H, ...]`."""
    if count() == 1:
        return x
    own = divided(x.shape[0])
    return lax.dynamic_slice_in_dim(x, lax.axis_index(AXIS) * own, own)


def divided(height: int) -> int:
    """Number of rows per device, of `height` rows in all."""
    if height % count():
        raise Indivisible(f"{height} rows, {count()} devices")
    return height // count()


def check_stride(x: Array, stride: int) -> None:
    """Raises Indivisible if rows are split and such steps would not begin with a device's first."""
    if count() > 1 and x.shape[1] % stride:
        raise Indivisible(f"{x.shape[1]} rows per device, in steps of {stride}")


def mean_of_positions(x: Array) -> Array:
    """The mean `[B, 1, 1, C]` over all rows and columns of `[B, H, W, C]`."""
    own = x.mean(axis=(1, 2), keepdims=True)
    return lax.pmean(own, AXIS) if count() > 1 else own


def bordered(x: Array, before: int, after: int) -> Array:
    """Extends `[B, H, ...]` by the neighbours' rows above and below; zeros beyond the image."""
    if count() == 1:
        return jnp.pad(x, ((0, 0), (before, after), *((0, 0),) * (x.ndim - 2)))
    if not before + after:
        return x
    height = x.shape[1]
    if max(before, after) > height:
        raise Indivisible(
            f"{height} rows per device, of which a kernel reaches {max(before, after)}"
        )
    # One exchange for both sides: devices wait for each other at every one, whatever its size.
    edges = jnp.concatenate([x[:, height - before :], x[:, :after]], 1)
    found = lax.all_gather(edges, AXIS)
    found = jnp.pad(found, ((1, 1), *((0, 0),) * x.ndim))  # zeros beyond the first and the last
    index = lax.axis_index(AXIS)
    above = lax.dynamic_index_in_dim(found, index, keepdims=False)[:, :before]
    below = lax.dynamic_index_in_dim(found, index + 2, keepdims=False)[:, before:]
    return jnp.concatenate([above, x, below], 1)
