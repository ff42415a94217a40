"""Structural similarity of two images, as DRAEM's loss uses it.

Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE TIP 2004, equation 13.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops.collectives import max_over_devices

WINDOW = 11  # taps an axis
SIGMA = 1.5  # of the Gaussian window, pixels


def window_matrix(n: int, weights: np.ndarray) -> np.ndarray:
    """Weights `[n, n]` of a 1-D filter with an odd number of taps; zeros beyond the border."""
    radius = len(weights) // 2
    tap = np.arange(n)[None] - np.arange(n)[:, None] + radius
    inside = (tap >= 0) & (tap < len(weights))
    return np.where(inside, np.asarray(weights)[np.clip(tap, 0, len(weights) - 1)], 0.0)


def gaussian_weights(size: int = WINDOW, sigma: float = SIGMA) -> np.ndarray:
    """The taps `[size]` of a Gaussian, their sum 1."""
    weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return weights / weights.sum()


def filter_with_zeros(images: Array, weights: np.ndarray) -> Array:
    """Applies the same 1-D filter along rows and columns of `[B, H, W, C]`, zeros around."""
    rows, columns = (
        jnp.asarray(window_matrix(n, weights), images.dtype) for n in images.shape[1:3]
    )
    return jnp.einsum("Hh,bhwc,Ww->bHWc", rows, images, columns, precision=lax.Precision.HIGHEST)


def dynamic_range(images: Array) -> Array:
    """The range L `[]` of values that the official code reads from the images of a batch.

    255 where a value exceeds 128, else 1; and 1 more where a value is below -.5. All devices that
    share a batch get the same.
    """
    largest = max_over_devices(lax.stop_gradient(images).max())
    smallest = -max_over_devices(-lax.stop_gradient(images).min())
    return jnp.where(largest > 128, 255.0, 1.0) + jnp.where(smallest < -0.5, 1.0, 0.0)


def ssim_map(x: Array, y: Array, value_range: Array | float | None = None) -> Array:
    """Similarity of `x` and `y` at each pixel: `[B, H, W, C] -> [B, H, W, C]`, at most 1.

    Gaussian window of 11 x 11 pixels, zeros beyond the border (which count), each channel apart.
    `value_range` is L of the constants `(.01 L)^2` and `(.03 L)^2`; None: `dynamic_range(x)`.
    """
    if value_range is None:
        value_range = dynamic_range(x)
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    weights = gaussian_weights()
    mean_x, mean_y = filter_with_zeros(x, weights), filter_with_zeros(y, weights)
    variance_x = filter_with_zeros(x * x, weights) - mean_x**2
    variance_y = filter_with_zeros(y * y, weights) - mean_y**2
    covariance = filter_with_zeros(x * y, weights) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)
