"""CoordConv: a convolution that also sees coordinates (Liu et al., 2018, arXiv 1807.03247)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax.layers.conv import Conv
from imvad_jax.layers.initializers import torch_uniform


def coordinates(height: int, width: int) -> Array:
    """Row and column of every pixel, each from -1 at the first to 1 at the last: `[h, w, 2]`."""
    # A single row lies at -1, where the formula of the paper would divide by zero.
    rows, columns = (2 * jnp.arange(n) / max(n - 1, 1) - 1 for n in (height, width))
    return jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"), -1)


def add_coordinates(features: Array) -> Array:
    """`[B, H, W, C]` with row and column appended, in this order: `[B, H, W, C + 2]`."""
    batch, height, width, _ = features.shape
    grid = coordinates(height, width).astype(features.dtype)
    grid = jnp.broadcast_to(grid, (batch, height, width, 2))
    return jnp.concatenate([features, grid], -1)


class CoordConv(nn.Module):
    """A convolution of `[B, H, W, C]` and its coordinates, started as PyTorch starts one.

    Weights and biases are uniform in +- 1 / sqrt(fan in); the fan in counts the coordinates.
    """

    features: int
    kernel_size: Sequence[int] = (1, 1)
    dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = add_coordinates(x)
        start = torch_uniform(x.shape[-1] * self.kernel_size[0] * self.kernel_size[1])
        return Conv(
            self.features,
            tuple(self.kernel_size),
            dtype=self.dtype,
            precision=self.precision,
            kernel_init=start,
            bias_init=start,
            name="conv",
        )(x)
