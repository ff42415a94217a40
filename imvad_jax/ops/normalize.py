"""Batch normalisation with the activation after it, in few passes over memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops.collectives import mean_over_devices


def activate(x: Array, negative_slope: float | None) -> Array:
    """ReLU where the slope of negative values is 0, leaky ReLU, or with None the array itself.

    The gradient at 0 is the one of negative values, as PyTorch's.
    """
    return x if negative_slope is None else jnp.where(x > 0, x, negative_slope * x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize_batch(
    x: Array, scale: Array, bias: Array, epsilon: float, negative_slope: float | None, dtype: Any
) -> tuple[Array, Array, Array]:
    """`activate((x - mean) / sqrt(var + epsilon) * scale + bias)` in `dtype`, the mean and the var.

    `x` is `[..., C]`; mean and variance `[C]` are those of the batch on all devices (divided by n),
    at least float32. Only the first result has a gradient, in reverse mode alone. Ioffe, Szegedy,
    "Batch Normalization", 2015, algorithm 1; its gradient is written so that it keeps `x` and the
    result and nothing between them. What JAX derives keeps and writes three further maps per layer,
    and on a processor such passes over memory take as long as a convolution of few channels.
    """
    return _forward(x, scale, bias, epsilon, negative_slope, dtype)[0]


def _wide(x: Array) -> Array:
    return jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))


def _forward(x, scale, bias, epsilon, negative_slope, dtype):
    values = _wide(x)
    axes = tuple(range(x.ndim - 1))
    mean, square = mean_over_devices((values.mean(axes), (values * values).mean(axes)))
    var = jnp.maximum(square - mean * mean, 0)
    rate = lax.rsqrt(var + epsilon)
    y = activate(((values - mean) * (rate * scale) + bias).astype(dtype), negative_slope)
    kept = x, None if negative_slope is None else y, mean, rate, scale
    return (y, mean, var), kept


def _backward(epsilon, negative_slope, dtype, kept, gradients):
    x, y, mean, rate, scale = kept
    values, gradient = _wide(x), _wide(gradients[0])
    if y is not None:
        gradient = jnp.where(y > 0, gradient, negative_slope * gradient)
    axes = tuple(range(x.ndim - 1))
    to_bias = gradient.sum(axes)
    # The product with `values - mean` would be one more map to write.
    along = (gradient * values).sum(axes) - mean * to_bias
    count = values.size // values.shape[-1]
    through_mean, through_var = mean_over_devices((to_bias / count, along / count))
    rise = rate * scale
    tilt = rise * rate * rate * through_var
    to_x = rise * gradient - tilt * values + (tilt * mean - rise * through_mean)
    return to_x.astype(x.dtype), along * rate, to_bias


normalize_batch.defvjp(_forward, _backward)
