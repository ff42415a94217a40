"""Batch normalisation with the activation after it, in few passes over memory."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax.ops.collectives import mean_over_devices


def activate(x: Array, negative_slope: float | None) -> Array:
    """ReLU where the slope of negative values is 0, else leaky ReLU; with None the array itself."""
    if negative_slope is None:
        return x
    return nn.leaky_relu(x, negative_slope) if negative_slope else nn.relu(x)


class How(NamedTuple):
    """What a batch normalisation has besides its arrays."""

    epsilon: float
    negative_slope: float | None  # of `activate`
    dtype: Any  # of the result


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize_batch(x: Array, scale: Array, bias: Array, how: How) -> tuple[Array, Array, Array]:
    """`activate((x - mean) / sqrt(var + epsilon) * scale + bias)`, the mean and the variance.

    `x` is `[..., C]`; mean and variance `[C]` are those of the batch on all devices (divided by n),
    at least float32. Only the first result has a gradient, in reverse mode alone. Ioffe, Szegedy,
    "Batch Normalization", 2015, algorithm 1. The gradient is written so that it keeps `x` and the
    result and nothing between them: what JAX derives keeps and writes further maps per layer, and
    such passes over memory take a good part of a processor's time where channels are few.
    """
    return _forward(x, scale, bias, how)[0]


def _wide(x: Array) -> Array:
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def _forward(x, scale, bias, how):
    values = _wide(x)
    axes = tuple(range(x.ndim - 1))
    mean, square = mean_over_devices((values.mean(axes), (values * values).mean(axes)))
    var = jnp.maximum(square - mean * mean, 0)
    rate = lax.rsqrt(var + how.epsilon)
    y = (values - mean) * (rate * scale) + bias
    y = activate(y.astype(how.dtype), how.negative_slope)
    kept = x, None if how.negative_slope is None else y, mean, rate, scale
    return (y, mean, var), kept


def _backward(how, kept, gradients):
    x, y, mean, rate, scale = kept
    values, gradient = _wide(x), _wide(gradients[0])
    if y is not None:
        # At 0 as of negative values: PyTorch's choice.
        below = how.negative_slope * gradient if how.negative_slope else 0
        gradient = jnp.where(y > 0, gradient, below)
    axes = tuple(range(x.ndim - 1))
    to_bias = gradient.sum(axes)
    # The product with `values - mean` would be one more map to write.
    along = (gradient * values).sum(axes) - mean * to_bias
    count = values.size // values.shape[-1]
    through_mean, through_var = mean_over_devices((to_bias / count, along / count))
    rise = rate * scale
    tilt = rise * rate * rate * through_var
    to_x = rise * gradient - tilt * values + (tilt * mean - rise * through_mean)
    return to_x.astype(x.dtype), (along * rate).astype(scale.dtype), to_bias.astype(scale.dtype)


normalize_batch.defvjp(_forward, _backward)
