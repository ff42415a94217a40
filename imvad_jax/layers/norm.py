"""Batch normalisation as PyTorch's, its statistics shared by all devices; layer norm of maps."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax.ops.collectives import mapped_axis


def batch_norm(train: bool, dtype=jnp.float32, **options) -> nn.BatchNorm:
    """eps 1e-5, torch momentum .1 (flax .9); synchronised under pmap, so that 1 and N devices see
    the same batch statistics."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=mapped_axis() if train else None,
        **options,
    )


def _map_mean(x: Array) -> Array:
    for axis in (3, 2, 1):
        x = x.mean(axis, keepdims=True)
    return x


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
        shape = x.shape[1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        x = x - _map_mean(x)
        return x * (lax.rsqrt(_map_mean(x * x) + self.epsilon) * scale) + bias
