"""CoordConv: a convolution that also sees coordinates (Liu et al., 2018, arXiv 1807.03247)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array, lax

from imvad_jax.layers.initializers import torch_uniform
from imvad_jax.ops import resample, rows


def coordinates(height: int, width: int) -> Array:
    """Row and column of every pixel, each from -1 at the first to 1 at the last: `[h, w, 2]`."""
    # A single row lies at -1, where the formula of the paper would divide by zero.
    sides = [2 * jnp.arange(n) / max(n - 1, 1) - 1 for n in (height, width)]
    return jnp.stack(jnp.meshgrid(*sides, indexing="ij"), -1)


def add_coordinates(features: Array) -> Array:
    """`[B, H, W, C]` with row and column appended, in this order: `[B, H, W, C + 2]`.

    Of split rows H is that of this device.
    """
    batch, height, width, _ = features.shape
    grid = rows.own_rows(coordinates(height * rows.count(), width)).astype(features.dtype)
    grid = jnp.broadcast_to(grid, (batch, height, width, 2))
    return jnp.concatenate([features, grid], -1)


class Affine(nn.Module):
    """Kernel `[1, 1, inputs, features]` and bias `[features]`, started as PyTorch starts them.

    Both are uniform in +- 1 / sqrt(inputs).
    """

    inputs: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        start, shape = torch_uniform(self.inputs), (1, 1, self.inputs, self.features)
        kernel = self.param("kernel", start, shape, jnp.float32)
        return kernel, self.param("bias", start, shape[-1:], jnp.float32)


class CoordConv(nn.Module):
    """A 1x1 convolution of maps of several sizes, enlarged to the first one's, and coordinates.

    The kernel's inputs are the channels of all maps, one map after the other, then row and column.
    A 1x1 convolution commutes with bilinear interpolation, so every map is multiplied at its own
    size, and the products are enlarged: with maps of half and a quarter of the size a fraction of
    the operations.
    """

    channels: Sequence[int]  # of each map
    features: int
    dtype: Any = jnp.float32
    precision: lax.PrecisionLike = None

    def setup(self):
        self.conv = Affine(sum(self.channels) + 2, self.features)

    def __call__(self, maps: Sequence[Array]) -> Array:
        """`[B, H, W, features]` of maps `[B, H, W, C]`, `[B, h, w, C']`, and so on."""
        weights, bias = self._parts()
        first, *others = self.inputs(maps)
        size = first.shape[1:3]
        found = jnp.matmul(first, weights[0], precision=self.precision) + bias
        for part, weight in zip(others, weights[1:], strict=True):
            product = jnp.matmul(part, weight, precision=self.precision)
            same = product.shape[1:3] == size
            found += product if same else resample.resize_bilinear(product, size)
        return found

    def inputs(self, maps: Sequence[Array]) -> list[Array]:
        """The maps in `dtype`, the first one with its coordinates appended."""
        first, *others = (part.astype(self.dtype) for part in maps)
        return [add_coordinates(first), *others]

    def factors(self, vectors: Array) -> tuple[list[Array], Array]:
        """What gives the products of all outputs with `vectors` `[M, features]`.

        Returns:
          Factors `[M, C]` of the `inputs` of each map, and the constant `[M]` to add to the sum of
          the products with them, each enlarged to the first map's size.
        """
        weights, bias = self._parts()
        found = [jnp.matmul(vectors, part.T, precision=self.precision) for part in weights]
        return found, jnp.matmul(vectors, bias, precision=self.precision)

    def _parts(self) -> tuple[list[Array], Array]:
        """The kernel's rows of each map's `inputs`, and the bias."""
        kernel, bias = (leaf.astype(self.dtype) for leaf in self.conv())
        *parts, of_coordinates = jnp.split(kernel[0, 0], np.cumsum(self.channels))
        return [jnp.concatenate([parts[0], of_coordinates]), *parts[1:]], bias
