"""Overlapping square windows of images, and a map of the image from a value for each of them."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def window_starts(size: int, window: int, stride: int) -> np.ndarray:
    """First pixels of all windows that lie inside, along one axis: int `[n]`."""
    return np.arange(0, size - window + 1, stride)


def map_windows(
    function: Callable[[Array], Array], images: Array, window: int, stride: int
) -> Array:
    """`function` of every window: `[B, H, W, C]` to `[B, h, w, ...]`.

    `function` takes `[B * w, window, window, C]`, one row of windows at a time: memory does not
    grow with the number of rows.
    """
    batch, height, width, _ = images.shape
    tops, lefts = (window_starts(size, window, stride) for size in (height, width))
    columns = lefts[:, None] + np.arange(window)

    def row(top):
        strip = lax.dynamic_slice_in_dim(images, top, window, 1)
        windows = jnp.moveaxis(strip[:, :, columns], 2, 1)  # [B, w, window, window, C]
        found = function(windows.reshape(-1, *windows.shape[2:]))
        return found.reshape(batch, len(lefts), *found.shape[1:])

    return jnp.moveaxis(lax.map(row, jnp.asarray(tops)), 0, 1)


def spread_matrix(size: int, window: int, stride: int, sigma: float) -> np.ndarray:
    """Weights `[size, n]` by which pixels take from windows: Gaussians around their centres.

    They add up to one for each pixel, so that a constant stays constant, also at the border.
    """
    centers = window_starts(size, window, stride) + (window - 1) / 2
    distance = np.arange(size)[:, None] - centers
    # Relative to the nearest, which far outside of all windows would be zero itself.
    exponent = distance**2 - np.min(distance**2, 1, keepdims=True)
    weights = np.exp(-exponent / (2 * sigma**2))
    return weights / weights.sum(1, keepdims=True)


def spread_windows(
    values: Array, size: tuple[int, int], window: int, stride: int, sigma: float
) -> Array:
    """A map `[B, H, W]` from values `[B, h, w]` of windows, each spread by a Gaussian."""
    rows, columns = (
        jnp.asarray(spread_matrix(n, window, stride, sigma), values.dtype) for n in size
    )
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, values, columns, precision=lax.Precision.HIGHEST)
