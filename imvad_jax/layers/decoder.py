"""The blocks of an encoder in reverse: the decoder of reverse distillation.

Deng, Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022,
arXiv 2201.10703, sections 3.2 and 3.3. The blocks are ResNet's own, with other strides.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers.conv import Conv
from imvad_jax.layers.norm import batch_norm


def convolution(dtype: Any) -> Callable[..., nn.Module]:
    """Makes convolutions without bias, started as the official code does (Kaiming, fan out)."""
    start = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    return partial(Conv, use_bias=False, dtype=dtype, kernel_init=start)


class UpConv(nn.Module):
    """Transposed 2x2 convolution of stride 2 without bias: `[B, h, w, C] -> [B, 2h, 2w, features]`.

    Its windows do not overlap, so that it is a 1x1 convolution to the four pixels of each window.
    """

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, rows, columns, _ = x.shape
        # PyTorch's start of transposed convolutions: uniform within 1 / sqrt(4 * features).
        start = nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")
        y = Conv(
            4 * self.features,
            (1, 1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=start,
            name="conv",
        )(x)
        y = y.reshape(batch, rows, columns, 2, 2, self.features)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * rows, 2 * columns, self.features)


def mirrored_convolution(dtype: Any) -> Callable[..., nn.Module]:
    """Like `convolution`, but a stride of 2 upsamples, with an `UpConv` for any window."""
    plain = convolution(dtype)

    def make(features: int, window, strides=(1, 1), *, padding: int, name: str) -> nn.Module:
        if strides == (2, 2):
            return UpConv(features, dtype, name=name)
        return plain(features, window, strides, padding=padding, name=name)

    return make


class OneClassEmbedding(nn.Module):
    """Multi-scale fusion and one-class embedding of a feature pyramid.

    Every map is brought to the size and width of the deepest by 3x3 convolutions of stride 2, and
    all are concatenated; residual blocks, the first of stride 2, compress them.
    """

    block: Callable[..., nn.Module]  # of backbones.resnet: gives the sum before its ReLU
    filters: int
    depth: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Array], train: bool) -> Array:
        """Embeds maps `[B, h, w, C]`, shallow to deep, each half the size of the one before.

        Returns `[B, h' / 2, w' / 2, filters * expansion]` with the size h', w' of the deepest.
        """
        conv, norm = convolution(self.dtype), partial(batch_norm, train, self.dtype)
        fused = []
        for level, x in enumerate(maps):
            for step, deeper in enumerate(maps[level + 1 :]):
                width, name = deeper.shape[-1], f"fuse{level}_{step}"
                x = conv(width, (3, 3), (2, 2), padding=1, name=f"{name}_conv")(x)
                x = norm(negative_slope=0, name=f"{name}_bn")(x)
            fused.append(x)
        x = jnp.concatenate(fused, -1)
        for index in range(self.depth):
            block = self.block(
                filters=self.filters,
                stride=2 if index == 0 else 1,
                conv=conv,
                norm=norm,
                name=f"block{index}",
            )
            x = nn.relu(block(x))
        return x


class ReverseDecoder(nn.Module):
    """A residual network whose stages enlarge: the mirror image of an encoder."""

    block: Callable[..., nn.Module]  # of backbones.resnet: gives the sum before its ReLU
    filters: Sequence[int]  # of each stage, in the order in which they run (deepest first)
    depths: Sequence[int]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, embedding: Array, train: bool) -> list[Array]:
        """Decodes `[B, h, w, C]` into one map a stage, each twice the size of the one before.

        Stage k gives `[B, h 2^(k+1), w 2^(k+1), filters[k] * expansion]`, the sum before its last
        ReLU, so that it can restore features of either sign.
        """
        conv, norm = mirrored_convolution(self.dtype), partial(batch_norm, train, self.dtype)
        found, x = [], embedding
        for stage, (filters, depth) in enumerate(zip(self.filters, self.depths, strict=True)):
            pre = x
            for index in range(depth):
                pre = self.block(
                    filters=filters,
                    stride=2 if index == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"stage{stage}_{index}",
                )(x)
                x = nn.relu(pre)
            found.append(pre)
        return found
