"""Maximum pooling from slices: XLA's own, and reductions of a reshaped map, are slow on the CPU."""

import functools

import jax
import jax.numpy as jnp
from jax import Array

from imvad_jax.ops import rows


@jax.custom_vjp
def max_pool_2x2(x: Array) -> Array:
    """The largest of every 2x2 positions of `[B, 2 h, 2 w, C]`: `[B, h, w, C]`.

    Of equal ones the first receives the gradient, as in PyTorch. Reverse mode only.
    """
    return functools.reduce(jnp.maximum, _corners(x))


def _corners(x: Array) -> list[Array]:
    """The four positions of every 2x2 of `[B, 2 h, 2 w, C]`, `[B, h, w, C]` each."""
    return [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _pool_forward(x):
    largest = max_pool_2x2(x)
    return largest, (x, largest)


def _pool_backward(kept, gradient):
    x, largest = kept
    free, parts = True, []
    for corner in _corners(x):
        found = (corner == largest) & free
        free &= ~found
        parts.append(jnp.where(found, gradient, 0))
    rows = [jnp.stack(parts[i : i + 2], 3) for i in (0, 2)]
    return (jnp.stack(rows, 2).reshape(x.shape),)


max_pool_2x2.defvjp(_pool_forward, _pool_backward)


def max_pool_3x3_of_positive(x: Array) -> Array:
    """The largest of the 3x3 positions around every second one of `[B, H, W, C]`, rounded up.

    As a pooling of stride 2 with a padding of 1 for values that are not negative.
    """
    rows.check_stride(x, 2)
    return _largest_of_three(_largest_of_three(x, 1), 2)


def _largest_of_three(x: Array, axis: int) -> Array:
    """Along one axis: of positions 2 i - 1, 2 i and 2 i + 1; zeros beyond the ends."""
    pad = [(0, 0)] * x.ndim
    if x.shape[axis] % 2:
        pad[axis] = (0, 1)
        x = jnp.pad(x, pad)
    pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
    # By name: jax2onnx's own `take` has no axis by position.
    even, odd = (jnp.take(pairs, side, axis=axis + 1) for side in (0, 1))
    pad[axis] = (1, 0)
    if axis == 1:
        before = rows.bordered(odd, 1, 0)[:, :-1]
    else:
        before = jnp.pad(odd[(slice(None),) * axis + (slice(-1),)], pad)
    return jnp.maximum(jnp.maximum(before, even), odd)
