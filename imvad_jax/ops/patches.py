"""Locally aware patch features (PatchCore, section 3.1): 3x3 neighbourhoods, adaptively pooled."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops import rows
from imvad_jax.ops.sums import total


def adaptive_average_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Weights `[n_out, n_in]` of 1-D adaptive average pooling (torch): window i covers
    `floor(i n_in / n_out) ... ceil((i + 1) n_in / n_out)`."""
    i = np.arange(n_out)
    start = i * n_in // n_out
    stop = -(-((i + 1) * n_in) // n_out)
    column = np.arange(n_in)
    inside = (column >= start[:, None]) & (column < stop[:, None])
    return inside / (stop - start)[:, None]


def _share(channels: tuple[int, ...], dim: int) -> int:
    """Values of a patch vector that each layer gives."""
    if dim % len(channels):
        raise ValueError(f"dim {dim} is not divisible by the number of layers {len(channels)}")
    return dim // len(channels)


def patch_kernels(channels: tuple[int, ...], dim: int, patch_size: int = 3) -> list[np.ndarray]:
    """Convolution kernels that give each layer's share of the pooled patch vector.

    Official PatchCore unfolds every layer into `C * k * k` values a position (channel-major), pools
    them to `dim`, stacks the layers and pools again to `dim`. Both pools are linear, so the share
    of a layer is a `k x k` convolution with fixed weights: `[k, k, C, n]`, where n is the number of
    the final `dim` values that this layer reaches (the shares must not overlap).

    Raises:
      ValueError: a final window reaches across two layers (`dim` not divisible by their number).
    """
    share = _share(channels, dim)
    final = adaptive_average_matrix(dim * len(channels), dim)
    kernels = []
    for number, count in enumerate(channels):
        first = adaptive_average_matrix(count * patch_size**2, dim)
        second = final[number * share : (number + 1) * share, number * dim : (number + 1) * dim]
        both = (second @ first).reshape(share, count, patch_size, patch_size)
        kernels.append(both.transpose(2, 3, 1, 0))
    return kernels


def average_kernels(channels: tuple[int, ...], dim: int, patch_size: int = 3) -> list[np.ndarray]:
    """Kernels that give each layer's share of the paper's patch vector: `[k, k, C, n]`.

    Every channel is averaged over the window by itself (PatchCore, section 3.1). The layers share
    `dim` equally: of a layer with more channels than its share, neighbouring ones are pooled to it;
    one with fewer keeps its C channels, times the square root of share / C. Squared distances are
    then those of a vector in which every channel stands share / C times, which no memory is spent
    on. So layers weigh as much, and values are of the scale, as with `patch_kernels`, which has
    the same kernels for a layer of `dim` channels.

    Raises:
      ValueError: `dim` is not divisible by the number of layers.
    """
    share = _share(channels, dim)
    kernels = []
    for count in channels:
        if count > share:
            pooled = adaptive_average_matrix(count, share).T
        else:
            pooled = np.eye(count) * math.sqrt(share / count)
        window = (patch_size, patch_size)
        kernels.append(np.broadcast_to(pooled, (*window, *pooled.shape)) / patch_size**2)
    return kernels


# How a patch's window becomes its vector, by the name of the setting.
AGGREGATIONS = {"official": patch_kernels, "local_average": average_kernels}


def aggregate_patches(features: Array, kernel: np.ndarray) -> Array:
    """Applies one of these kernels `[k, k, C, n]` to `[B, H, W, C]`, giving `[B, H, W, n]`.

    Zero padding counts in the average, as in the official code. The kernel is block-diagonal over
    groups of channels (one channel reaches few outputs), so it runs as shifted sums over the
    groups, not as a dense convolution that would multiply mostly by zero.
    """
    size, _, channels, outputs = kernel.shape
    before = (size - 1) // 2
    after = size - 1 - before
    groups = math.gcd(channels, outputs)
    per_in, per_out = channels // groups, outputs // groups
    blocks = kernel.reshape(size, size, groups, per_in, groups, per_out)
    own = np.arange(groups)
    diagonal = blocks[:, :, own, :, own, :]  # advanced indices first: [groups, k, k, in, out]
    if not np.isclose(np.abs(diagonal).sum(), np.abs(kernel).sum()):
        return lax.conv_general_dilated(
            rows.bordered(features, before, after), jnp.asarray(kernel, features.dtype), (1, 1),
            ((0, 0), (before, after)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )  # fmt: skip
    weights = jnp.asarray(diagonal, features.dtype)
    batch, height, width, _ = features.shape
    padded = rows.bordered(features, before, after)
    padded = jnp.pad(padded, ((0, 0), (0, 0), (before, after), (0, 0)))
    padded = padded.reshape(batch, height + size - 1, width + size - 1, groups, per_in)
    parts = []
    for row in range(size):
        for column in range(size):
            window = padded[:, row : row + height, column : column + width]
            for i in range(per_in):
                parts.append(window[..., i, None] * weights[:, row, column, i])
    return total(parts).reshape(batch, height, width, outputs)
