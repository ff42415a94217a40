"""DRAEM's two networks: one reconstructs the normal image, the other segments what changed.

Zavrtanik, Kristan, Skocaj, "DRAEM", ICCV 2021, section 3; widths, initialisation and order of the
layers follow the authors' code.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers.conv import Conv
from imvad_jax.layers.initializers import normal, torch_uniform
from imvad_jax.layers.norm import batch_norm
from imvad_jax.ops.pooling import max_pool_2x2
from imvad_jax.ops.resample import double_size

STD = 0.02  # of the weights at the start


class Convolutions(nn.Module):
    """3x3 convolution, batch norm, ReLU for each of `widths`.

    Weights start from N(0, .02), scales from N(1, .02), biases as PyTorch's.
    """

    widths: Sequence[int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """`[B, h, w, C]` to `[B, h, w, widths[-1]]`."""
        for index, width in enumerate(self.widths):
            conv = Conv(
                width,
                (3, 3),
                padding=1,
                dtype=self.dtype,
                kernel_init=normal(0, STD),
                bias_init=torch_uniform(9 * x.shape[-1]),
                name=f"conv{index}",
            )
            norm = batch_norm(
                train,
                self.dtype,
                scale_init=normal(1, STD),
                negative_slope=0,
                name=f"bn{index}",
            )
            x = norm(*conv.before_bias(x))
        return x


def _output(features: int, inputs: int, dtype: Any) -> Conv:
    """The last 3x3 convolution of a network."""
    return Conv(
        features,
        (3, 3),
        padding=1,
        dtype=dtype,
        kernel_init=normal(0, STD),
        bias_init=torch_uniform(9 * inputs),
        name="output",
    )


def _encode(x: Array, widths: Sequence[int], dtype: Any, train: bool) -> list[Array]:
    """Maps of two convolutions each, a 2x2 maximum between them; within a compact module."""
    maps = []
    for level, width in enumerate(widths):
        if level:
            x = max_pool_2x2(x)
        x = Convolutions((width, width), dtype, name=f"encoder{level}")(x, train)
        maps.append(x)
    return maps


def _restored(widths: Sequence[int], level: int) -> int:
    """Channels of the decoder at the size of an encoder's level: those of the level above it."""
    return widths[max(level - 1, 0)]


class ReconstructiveNetwork(nn.Module):
    """An autoencoder without skip connections: maps a defective image to the normal one."""

    widths: Sequence[int] = (128, 256, 512, 1024, 1024)  # by level, each half the size
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """`[B, H, W, 3]` to the same, not bounded. H and W divide by 2 to the number of halvings.

        Each stage of the decoder doubles, convolves once, then twice; the last of the three
        convolutions narrows.
        """
        x = _encode(images, self.widths, self.dtype, train)[-1]
        for level in reversed(range(len(self.widths) - 1)):
            width = x.shape[-1]
            widths = (width, width, _restored(self.widths, level))
            x = Convolutions(widths, self.dtype, name=f"decoder{level}")(double_size(x), train)
        return _output(images.shape[-1], x.shape[-1], self.dtype)(x)


class DiscriminativeNetwork(nn.Module):
    """A U-Net that segments anomalous pixels."""

    widths: Sequence[int] = (64, 128, 256, 512, 512, 512)
    classes: int = 2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """`[B, H, W, C]` to logits `[B, H, W, classes]`; sizes as for the other network."""
        maps = _encode(x, self.widths, self.dtype, train)
        x = maps[-1]
        for level in reversed(range(len(self.widths) - 1)):
            width = _restored(self.widths, level)
            up = Convolutions((width,), self.dtype, name=f"up{level}")(double_size(x), train)
            x = jnp.concatenate([up, maps[level]], -1)
            x = Convolutions((width, width), self.dtype, name=f"decoder{level}")(x, train)
        return _output(self.classes, x.shape[-1], self.dtype)(x)
