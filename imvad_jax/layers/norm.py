"""Batch norm like PyTorch's, with statistics over all devices; layer norm of feature maps."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax.layers.parameters import parameter
from imvad_jax.ops import normalize
from imvad_jax.ops.collectives import mapped_axis
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
    negative_slope: float | None = None  # 0: a ReLU follows; more: a leaky one; None: nothing does

    @nn.compact
    def __call__(self, x: Array, offset: Array | None = None) -> Array:
        """Normalises `x` `[..., C]`, or `x + offset`. A single value a channel has the variance 0.

        The offset `[C]` is the bias of the layer before. The mean of a batch cancels it, so that it
        has no gradient in training, and adding it would be a pass over memory for nothing.
        """
        width = x.shape[-1:]
        mean_kept = self.variable("batch_stats", "mean", jnp.zeros, width, jnp.float32)
        var_kept = self.variable("batch_stats", "var", jnp.ones, width, jnp.float32)
        scale = parameter(self, "scale", self.scale_init, width)
        bias = parameter(self, "bias", nn.initializers.zeros, width)
        if self.use_running_average:
            x = x if offset is None else x + offset
            rate = lax.rsqrt(var_kept.value + self.epsilon) * scale
            y = (x - mean_kept.value) * rate + bias
            return normalize.activate(y.astype(self.dtype), self.negative_slope)
        how = normalize.How(self.epsilon, self.negative_slope, self.dtype)
        y, mean, var = cast(tuple[Array, ...], normalize.normalize_batch(x, scale, bias, how))
        if not self.is_initializing():
            n = x.size // x.shape[-1] * (lax.axis_size(mapped_axis()) if mapped_axis() else 1)
            mean = mean if offset is None else mean + offset
            unbiased = var * (n / max(n - 1, 1))
            for kept, new in ((mean_kept, mean), (var_kept, unbiased)):
                kept.value = self.momentum * kept.value + (1 - self.momentum) * new
        return y


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
