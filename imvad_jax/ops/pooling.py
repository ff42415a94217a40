"""Maximum pooling by reshaping: the gradient of XLA's own is slow on the CPU."""

import jax.numpy as jnp
from jax import Array

from imvad_jax.ops import rows


def max_pool_2x2(x: Array) -> Array:
    """The largest of every 2x2 positions of `[B, 2 h, 2 w, C]`: `[B, h, w, C]`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))


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
