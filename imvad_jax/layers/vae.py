"""The convolutional variational autoencoder of FAVAE: images through a vector and back.

Dehaene, Eline, "Anomaly localization by modeling perceptual features", arXiv 2008.05369, 2020. The
paper leaves the network open; this is the one of the common code
(xiahaifeng1995/FAVAE-anomaly-detection-localization-master), with PyTorch's start everywhere.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers import conv
from imvad_jax.layers.initializers import torch_uniform
from imvad_jax.layers.norm import batch_norm
from imvad_jax.ops import resample
from imvad_jax.ops.convolution import convolve_transposed

SLOPE = 0.2  # of the leaky ReLUs
REDUCTION = 16  # input pixels per position of the deepest map


class Conv(nn.Module):
    """PyTorch's Conv2d with a bias: `[B, H, W, C] -> [B, h, w, features]`."""

    features: int
    window: Sequence[int]
    stride: int = 1
    padding: int = 0
    dtype: Any = jnp.float32

    def __call__(self, x: Array) -> Array:
        y, bias = self.before_bias(x)
        return y if bias is None else y + bias

    @nn.compact
    def before_bias(self, x: Array) -> tuple[Array, Array | None]:
        """As `layers.conv.Conv.before_bias`."""
        start = torch_uniform(math.prod(self.window) * x.shape[-1])
        return conv.Conv(
            self.features,
            self.window,
            (self.stride, self.stride),
            self.padding,
            dtype=self.dtype,
            kernel_init=start,
            bias_init=start,
            name="conv",
        ).before_bias(x)


class TransposedConv(nn.Module):
    """PyTorch's ConvTranspose2d with a bias: `[B, H, W, C] -> [B, h, w, features]`.

    Window 4, stride 2, padding 1 doubles the size; `h = stride * (H - 1) + window - 2 padding`. The
    kernel is `[window, C, features]`, PyTorch's weight not flipped.
    """

    features: int
    window: Sequence[int]
    stride: int = 1
    padding: int = 0
    dtype: Any = jnp.float32

    def __call__(self, x: Array) -> Array:
        y, bias = self.before_bias(x)
        return y + bias

    @nn.compact
    def before_bias(self, x: Array) -> tuple[Array, Array]:
        """What the bias is still to be added to, and the bias `[features]`."""
        # PyTorch takes the fan in from the weight's second dimension, here that of the outputs.
        start = torch_uniform(math.prod(self.window) * self.features)
        kernel = self.param("kernel", start, (*self.window, x.shape[-1], self.features))
        bias = self.param("bias", start, (self.features,))
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        return convolve_transposed(x, kernel, self.stride, self.padding), bias


class Encoder(nn.Module):
    """Images to the mean and log variance of their latent vectors.

    `width` is that of the first layer (officially 128); later ones are 2 and 4 times as wide, the
    narrowest a quarter.
    """

    width: int
    latent_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, train: bool) -> tuple[Array, Array]:
        """`[B, H, W, 3]`, sides multiples of 16, to two arrays `[B, latent_size]`."""
        w, half, same = self.width, ((4, 4), 2, 1), ((3, 3), 1, 1)
        layers = (
            (w, half), (w, half), (2 * w, same), (2 * w, half), (4 * w, same), (4 * w, half),
            (4 * w, same), (w // 4, same),
        )  # fmt: skip
        norm = partial(batch_norm, train, self.dtype, negative_slope=SLOPE)
        x = images.astype(self.dtype)
        for number, (features, geometry) in enumerate(layers, 1):
            layer = Conv(features, *geometry, dtype=self.dtype, name=f"conv{number}")
            x = norm(name=f"bn{number}")(*layer.before_bias(x))
        last = Conv(2 * self.latent_size, x.shape[1:3], dtype=self.dtype, name="conv9")
        mean, log_variance = jnp.split(last(x)[:, 0, 0], 2, -1)
        return mean, log_variance


class Decoder(nn.Module):
    """Decodes latent vectors to images and to maps that are compared with a teacher's features."""

    width: int  # as the encoder's
    grid: tuple[int, int]  # size of the deepest map: a 16th of the image
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latent: Array, train: bool) -> tuple[Array, list[Array]]:
        """`[B, Z]` to images `[B, 16 h, 16 w, 3]` in [0, 1] and the three maps, shallow to deep.

        These are `[B, 8 h, 8 w, width]`, `[B, 4 h, 4 w, 2 width]`, `[B, 2 h, 2 w, 4 width]`: what
        the transposed convolutions of stride 2 give, before batch norm and activation.
        """
        w, double, same = self.width, ((4, 4), 2, 1), ((3, 3), 1, 1)
        layers = (
            (w // 4, (self.grid, 1, 0)), (4 * w, same), (4 * w, same), (4 * w, double),
            (2 * w, same), (2 * w, double), (w, same), (w, double),
        )  # fmt: skip
        make = partial(TransposedConv, dtype=self.dtype)
        norm = partial(batch_norm, train, self.dtype, negative_slope=SLOPE)
        x, maps = latent.astype(self.dtype)[:, None, None], []
        for number, (features, geometry) in enumerate(layers, 1):
            x, bias = make(features, *geometry, name=f"conv{number}").before_bias(x)
            if geometry is double:
                maps.insert(0, x + bias)
            x = norm(name=f"bn{number}")(x, bias)
        return nn.sigmoid(make(3, *double, name="conv9")(x)), maps


class Adapter(nn.Module):
    """Two 1x1 convolutions, a ReLU between them: `[B, h, w, C] -> [B, *grid, features]`.

    Resizes to another grid bilinearly, before the second convolution, which has fewer positions
    then. The result is that of resizing last: both are linear, weights of neighbours add up to 1.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, grid: Sequence[int] | None = None) -> Array:
        x = nn.relu(Conv(self.features, (1, 1), dtype=self.dtype, name="conv1")(x))
        if grid is not None and x.shape[1:3] != tuple(grid):
            x = resample.resize_bilinear(x, grid)
        return Conv(self.features, (1, 1), dtype=self.dtype, name="conv2")(x)
