"""Batch norm like PyTorch's, with statistics over all devices; layer norm of feature maps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax.layers.parameters import parameter
from imvad_jax.ops.collectives import mapped_axis, mean_over_devices
from imvad_jax.ops.sums import total


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as PyTorch's.

    Parameters and statistics are those of flax's module of this name, so that their checkpoints are
    the same; but flax keeps the running variance of the batch divided by n, the values of a channel
    on all devices, and PyTorch divided by n - 1. What is normalised is divided by n in both.
    """

    use_running_average: bool
    momentum: float = 0.9  # share of the old statistics; PyTorch's momentum is the rest
    epsilon: float = 1e-5
    dtype: Any = jnp.float32  # of the result; statistics are at least float32
    scale_init: Callable[..., Array] = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[..., C]` to the same shape. A single value a channel has the variance 0."""
        width = x.shape[-1:]
        mean_kept = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        var_kept = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        if self.use_running_average:
            mean, var = mean_kept.value, var_kept.value
        else:
            mean, var = self._of_batch(x, mean_kept, var_kept)
        scale = parameter(self, "scale", self.scale_init, width)
        bias = parameter(self, "bias", nn.initializers.zeros, width)
        y = (x - mean) * (lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.astype(self.dtype)

    def _of_batch(self, x: Array, mean_kept, var_kept) -> tuple[Array, Array]:
        """Mean and variance `[C]` of the batch over all devices; updates the running statistics."""
        x = jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32))
        axes = tuple(range(x.ndim - 1))
        mean, square = mean_over_devices((x.mean(axes), (x * x).mean(axes)))
        var = jnp.maximum(square - mean * mean, 0)
        if not self.is_initializing():
            n = x.size // x.shape[-1] * (lax.axis_size(mapped_axis()) if mapped_axis() else 1)
            unbiased = var * (n / max(n - 1, 1))
            for kept, new in ((mean_kept, mean), (var_kept, unbiased)):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return mean, var


def batch_norm(train: bool, dtype=jnp.float32, **options) -> BatchNorm:
    """The batch normalisation of all networks of the project; `options` as above.

    Synchronised under pmap, so that 1 and N devices see the same batch statistics.
    """
    return BatchNorm(use_running_average=not train, dtype=dtype, **options)


def _map_mean(x: Array) -> Array:
    for axis in (3, 2, 1):
        x = x.mean(axis, keepdims=True)
    return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _per_image(values: Array, count: int) -> Array:
    """`[H, W, C]` to `[count, H, W, C]`; the gradient is the sum over the images.

    It is written as sums of two, because XLA's reductions over the first axis, together with the
    products before them, are several times slower on processors. Reverse mode only.
    """
    return jnp.broadcast_to(values, (count, *values.shape))


def _per_image_forward(values, count):
    return _per_image(values, count), None


def _per_image_backward(count, _, gradient):
    return (total(gradient[i] for i in range(count)),)


_per_image.defvjp(_per_image_forward, _per_image_backward)


class MapNorm(nn.Module):
    """Layer norm over whole feature maps, as PyTorch's `LayerNorm((C, H, W))`.

    The same as flax's with all axes but the batch, `use_fast_variance=False`, and its parameters;
    but the means are taken one axis after the other. A single sum of hundreds of thousands of
    float32 is inaccurate in runtimes other than JAX's: each adds in an order of its own.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` to the same shape."""
        count, *shape = x.shape
        scale: Array = _per_image(parameter(self, "scale", nn.initializers.ones, shape), count)
        bias: Array = _per_image(parameter(self, "bias", nn.initializers.zeros, shape), count)
        x = x - _map_mean(x)
        return x * (lax.rsqrt(_map_mean(x * x) + self.epsilon) * scale) + bias
