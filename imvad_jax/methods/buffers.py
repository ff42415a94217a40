"""Collects rows of good images: preallocated per device, restored to the order of the files."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Image counts are rounded up to a multiple of this, so that categories share compiled programs.
IMAGE_BUCKET = 64


class Buffer(NamedTuple):
    """Rows of up to `capacity` images on one device."""

    position: Array  # [] int32, the next free row
    # [capacity] int32, the image's number in the training set; -1: empty or padding
    index: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    rows: dict[str, Array]  # [capacity, ...] each


def init_buffer(capacity: int, shapes: dict[str, tuple[int, ...]]) -> Buffer:
    """An empty buffer with one float32 array `[capacity, *shape]` a name."""
    rows = {name: jnp.zeros((capacity, *shape), jnp.float32) for name, shape in shapes.items()}
    return Buffer(jnp.zeros((), jnp.int32), jnp.full(capacity, -1, jnp.int32), rows)


def append(buffer: Buffer, index: Array, rows: dict[str, Array]) -> Buffer:
    """Writes a batch `[B, ...]` behind the rows already there (in place when donated)."""

    def write(old, new):
        return lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), buffer.position, 0)

    return Buffer(
        buffer.position + index.shape[0],
        write(buffer.index, index),
        {name: write(buffer.rows[name], rows[name]) for name in buffer.rows},
    )


def collect(buffers: Sequence[Buffer], name: str, total: int) -> np.ndarray:
    """Rows `[total, ...]` of all devices in the order of the training set; unused rows are 0.

    They leave the buffers, which frees their memory. The order does not depend on the number of
    devices, so neither does anything fitted on it.
    """
    out = np.zeros((total, *buffers[0].rows[name].shape[1:]), np.float32)
    for buffer in buffers:
        index = np.asarray(buffer.index)
        out[index[index >= 0]] = np.asarray(buffer.rows.pop(name))[index >= 0]
    return out


def take_rows(buffers: Sequence[Buffer], name: str, images: np.ndarray, inner: np.ndarray):
    """Vectors `[M, D]`, number `inner[m]` within image `images[m]`, of rows `[capacity, P, D]`.

    Gathered where they lie: only the chosen vectors leave the devices.
    """
    out = None
    for buffer in buffers:
        index = np.asarray(buffer.index)
        slot_of = np.full(max(int(index.max(initial=-1)), int(images.max())) + 1, -1)
        slot_of[index[index >= 0]] = np.flatnonzero(index >= 0)
        slots = slot_of[images]
        found = np.asarray(buffer.rows[name][np.maximum(slots, 0), inner])
        out = found if out is None else np.where((slots >= 0)[:, None], found, out)
    assert out is not None  # there is a device
    return out
