"""Coupling of feature maps of several scales at once: exact forward, inverse, log-determinant.

Rudolph, Wehrbein, Rosenhahn, Wandt, "Fully Convolutional Cross-Scale-Flows for Image-based Defect
Detection", WACV 2022, arXiv 2110.02855, with the choices of the official code
(marco-rudolph/cs-flow). Scales go from fine to coarse; each is half as high and wide as the one
before, rounded up.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers import coupling
from imvad_jax.layers.conv import Conv
from imvad_jax.layers.initializers import torch_uniform
from imvad_jax.ops import resample
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

SLOPE = 0.1  # of the leaky ReLU below zero
LARGEST = 1e6  # what a coupling returns lies within +- this
ATAN_FACTOR = 0.636  # about 2 / pi


def atan_clamp(s: Array, clamp: float) -> Array:
    """A log scale that stays within +-`clamp`, with a slope of .636 at 0."""
    return clamp * ATAN_FACTOR * jnp.arctan(s / clamp)


class CrossScaleSubnet(nn.Module):
    """Two convolutions a scale; the second also sees the scales next to its own.

    The hidden maps of the coarser scale are enlarged bilinearly and convolved, those of the finer
    are convolved with stride 2, and both are added. Each output is multiplied by a factor of its
    own that starts at 0. Convolutions start as PyTorch's.
    """

    features: int
    hidden: int
    kernel_size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Array]) -> list[Array]:
        """Maps `[B, h_i, w_i, C]` by scale to as many `[B, h_i, w_i, features]`."""
        hidden = [
            nn.leaky_relu(self._conv(x.astype(self.dtype), self.hidden, f"conv1_{i}"), SLOPE)
            for i, x in enumerate(maps)
        ]
        found = []
        for i, x in enumerate(hidden):
            y = self._conv(x, self.features, f"conv2_{i}")
            if i + 1 < len(hidden):
                up = resample.resize_bilinear(hidden[i + 1], x.shape[1:3])
                y += self._conv(up, self.features, f"up_{i}")
            if i > 0:
                y += self._conv(hidden[i - 1], self.features, f"down_{i}", stride=2)
            gamma = self.param(f"gamma_{i}", nn.initializers.zeros, (), jnp.float32)
            found.append(y * gamma.astype(y.dtype))
        return found

    def _conv(self, x: Array, features: int, name: str, stride: int = 1) -> Array:
        start = torch_uniform(self.kernel_size**2 * x.shape[-1])
        return Conv(
            features,
            (self.kernel_size, self.kernel_size),
            (stride, stride),
            padding=self.kernel_size // 2,
            dtype=self.dtype,
            kernel_init=start,
            bias_init=start,
            name=name,
        )(x)


class CrossScaleCoupling(nn.Module):
    """One block: a permutation of the channels of each scale, then both halves in turn.

    The second half of the channels steers the first, then the first so changed the second. `dtype`
    is that of the subnets; the rest is computed in that of the input, at least float32.
    """

    hidden: int
    kernel_size: int
    clamp: float = 3.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, maps: Sequence[Array], permutations: Sequence[Array], reverse: bool = False
    ) -> tuple[list[Array], Array]:
        """Maps `[B, h_i, w_i, C]` and permutations int `[C]` by scale -> maps, log-det `[B]`.

        `reverse` computes the inverse and its own log-determinant; the inverse holds where the
        limit of +-1e6 was not met.
        """
        channels = maps[0].shape[-1]
        half = channels // 2
        first = CrossScaleSubnet(
            2 * (channels - half), self.hidden, self.kernel_size, self.dtype, name="from_first"
        )
        second = CrossScaleSubnet(
            2 * half, self.hidden, self.kernel_size, self.dtype, name="from_second"
        )
        x = [full_precision(m) for m in maps]
        if not reverse:
            x = [coupling.permute(m, p) for m, p in zip(x, permutations, strict=True)]
        a, b = [m[..., :half] for m in x], [m[..., half:] for m in x]
        if reverse:
            b, log_det = self._move(b, first(a), reverse)
            a, other = self._move(a, second(b), reverse)
        else:
            a, log_det = self._move(a, second(b), reverse)
            b, other = self._move(b, first(a), reverse)
        y = [jnp.concatenate(halves, -1) for halves in zip(a, b)]
        if reverse:
            y = [coupling.unpermute(m, p) for m, p in zip(y, permutations, strict=True)]
        else:
            y = [jnp.clip(m, -LARGEST, LARGEST) for m in y]
        return y, log_det + other

    def _move(self, maps, steering, reverse) -> tuple[list[Array], Array]:
        """Affine maps by scale, and the sum of their log-determinants."""
        moved, log_dets = [], []
        for x, s in zip(maps, steering, strict=True):
            log_scale, shift = jnp.split(s.astype(x.dtype), 2, -1)
            y, log_det = coupling.affine(x, atan_clamp(log_scale, self.clamp), shift, reverse)
            moved.append(y)
            log_dets.append(log_det)
        return moved, total(log_dets)
