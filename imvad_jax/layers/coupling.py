"""Affine coupling on feature maps: exact forward, inverse and log-determinant.

The single step is FrEIA's AllInOneBlock as FastFlow uses it: soft-clamped affine coupling
(Dinh et al., "Real NVP", arXiv 1605.08803; the clamp by Ardizzone et al., arXiv 1907.02392), a
global affine per channel, a fixed permutation of the channels.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers.conv import Conv
from imvad_jax.layers.initializers import torch_uniform
from imvad_jax.ops.channels import take_channels
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

SUBNET_FACTOR = 0.1  # on both outputs of the subnet, so that a step starts near the identity
SOFTPLUS_BETA = 0.5
UNIT_SCALE = math.log(math.expm1(SOFTPLUS_BETA * 10)) / SOFTPLUS_BETA  # 9.987: a scale of 1


def draw_permutations(key: Array, steps: int, channels: int) -> Array:
    """One random permutation of the channels per step: int32 `[steps, channels]`."""
    keys = jax.random.split(key, steps)
    return jax.vmap(lambda k: jax.random.permutation(k, channels))(keys).astype(jnp.int32)


def permute(x: Array, permutation: Array) -> Array:
    """`y[..., i] = x[..., permutation[i]]`; `permutation` int `[C]` must be one."""
    return take_channels(x, permutation)


def unpermute(y: Array, permutation: Array) -> Array:
    """The inverse of `permute`."""
    return permute(y, jnp.argsort(permutation))


def tanh_clamp(a: Array, clamp: float) -> Array:
    """A log scale that stays within +-`clamp`: `clamp * tanh(a)`."""
    return clamp * jnp.tanh(a)


def affine(x: Array, log_scale: Array, shift: Array, reverse: bool = False) -> tuple[Array, Array]:
    """`x * exp(log_scale) + shift` for maps `[B, H, W, C]`, or its inverse; log-determinant `[B]`.

    The log-determinant is that of the requested direction.
    """
    total = log_scale.sum((1, 2, 3))
    if reverse:
        return (x - shift) * jnp.exp(-log_scale), -total
    return x * jnp.exp(log_scale) + shift, total


class ConvSubnet(nn.Module):
    """Convolution, ReLU, convolution at full resolution, with PyTorch's start.

    The hidden width is `hidden_ratio` times that of the input.
    """

    features: int
    kernel_size: int
    hidden_ratio: float = 1.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """`[B, H, W, C]` to `[B, H, W, features]`."""
        hidden = int(x.shape[-1] * self.hidden_ratio)
        x = nn.relu(self._conv(x.astype(self.dtype), hidden, "conv1"))
        return self._conv(x, self.features, "conv2")

    def _conv(self, x: Array, features: int, name: str) -> Array:
        start = torch_uniform(x.shape[-1] * self.kernel_size**2)
        size = (self.kernel_size, self.kernel_size)
        return Conv(
            features, size, dtype=self.dtype, kernel_init=start, bias_init=start, name=name
        )(x)


class AllInOneBlock(nn.Module):
    """One step: coupling, global affine, permutation.

    The first `C - C // 2` channels pass and steer the others. The global scale is
    `0.1 * softplus_beta(p)`, beta .5, and starts at 1. `dtype` is that of the subnet; the rest is
    computed in the dtype of the input, in float32 where that is narrower.
    """

    kernel_size: int
    hidden_ratio: float = 1.0
    clamp: float = 2.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, permutation: Array, reverse: bool = False) -> tuple[Array, Array]:
        """`[B, H, W, C]`, int `[C]` -> `[B, H, W, C]` and the log-determinant `[B]`.

        `reverse` computes the inverse and its own log-determinant.
        """
        channels = x.shape[-1]
        active = channels // 2
        split = channels - active
        subnet = ConvSubnet(
            2 * active, self.kernel_size, self.hidden_ratio, self.dtype, name="subnet"
        )
        width, start = (channels,), nn.initializers.constant(UNIT_SCALE)
        raw = self.param("global_scale", start, width, jnp.float32)
        offset = self.param("global_offset", nn.initializers.zeros, width, jnp.float32)
        scale = 0.1 * jax.nn.softplus(SOFTPLUS_BETA * raw) / SOFTPLUS_BETA
        x = full_precision(x)
        if reverse:
            x = (unpermute(x, permutation) - offset) / scale
        # The gradient of a split is a concatenation; that of slices pads and adds.
        passive, rest = jnp.split(x, [split], -1)
        steer = SUBNET_FACTOR * subnet(passive).astype(x.dtype)
        log_scale, shift = jnp.split(steer, 2, -1)
        moved, log_det = affine(rest, tanh_clamp(log_scale, self.clamp), shift, reverse)
        x = jnp.concatenate([passive, moved], -1)
        global_log_det = x.shape[1] * x.shape[2] * jnp.log(scale).sum()
        if reverse:
            return x, log_det - global_log_det
        return permute(x * scale + offset, permutation), log_det + global_log_det


class Flow(nn.Module):
    """A stack of AllInOneBlocks, one for each entry of `kernel_sizes`."""

    kernel_sizes: Sequence[int]
    hidden_ratio: float = 1.0
    clamp: float = 2.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, permutations: Array, reverse: bool = False) -> tuple[Array, Array]:
        """`[B, H, W, C]`, int `[steps, C]` -> `[B, H, W, C]` and the log-determinant `[B]`."""
        log_dets = []
        steps = list(enumerate(self.kernel_sizes))
        for i, size in reversed(steps) if reverse else steps:
            block = AllInOneBlock(size, self.hidden_ratio, self.clamp, self.dtype, name=f"step_{i}")
            x, log_det = block(x, permutations[i], reverse)
            log_dets.append(log_det)
        return x, total(log_dets)
