"""Photometric operations on one image `[H, W, C]` in [0, 1], compiled, nothing rounded.

Named and defined as Pillow's (ImageOps, ImageEnhance), which work on 8 bits. Only `posterize`,
`autocontrast` and `equalize` count grey levels and see the image in 256 of them.
"""

import jax
import jax.numpy as jnp
from jax import Array

LEVELS = 256


def _levels(image: Array) -> Array:
    """The nearest of 256 grey levels, int32."""
    return jnp.rint(image * (LEVELS - 1)).astype(jnp.int32)


def _histograms(levels: Array) -> Array:
    """Numbers of pixels by channel and level, int32 `[C, 256]`, of levels `[H, W, C]`."""
    flat = levels.reshape(-1, levels.shape[-1]).T
    return jax.vmap(lambda channel: jnp.zeros(LEVELS, jnp.int32).at[channel].add(1))(flat)


def gamma_contrast(image: Array, gamma: Array) -> Array:
    """Values to the power of `gamma` (`[]` or by channel, `[C]`)."""
    return image**gamma


def multiply_add(image: Array, factor: Array, offset: Array) -> Array:
    """Brightness: `factor * image + offset`, clipped to [0, 1]."""
    return jnp.clip(factor * image + offset, 0, 1)


def sharpness(image: Array, factor: Array) -> Array:
    """Factor 0 gives the smoothed image, 1 the image, more a sharper one; clipped to [0, 1].

    The smoothing is Pillow's: 3 x 3, weight 5 of 13 in the middle; it leaves the border alone.
    """
    height, width = image.shape[:2]
    shifted = (image[i : height - 2 + i, j : width - 2 + j] for i in range(3) for j in range(3))
    middle = image[1:-1, 1:-1]
    smooth = image.at[1:-1, 1:-1].set((sum(shifted) + 4 * middle) / 13)
    return jnp.clip(smooth + factor * (image - smooth), 0, 1)


def solarize(image: Array, threshold: Array) -> Array:
    """Inverts the values from `threshold` on."""
    return jnp.where(image < threshold, image, 1 - image)


def posterize(image: Array, bits: Array) -> Array:
    """Keeps the upper `bits` (1 ... 8) of the 8 bits of each value."""
    levels = _levels(image)
    return (levels - levels % 2 ** (8 - bits)).astype(image.dtype) / (LEVELS - 1)


def invert(image: Array) -> Array:
    """The negative."""
    return 1 - image


def autocontrast(image: Array, cutoff: Array) -> Array:
    """Stretches each channel to 0 ... 1; `cutoff` of its pixels (a share) are cut at either end."""
    counts = _histograms(_levels(image))
    below, above = jnp.cumsum(counts, -1), jnp.cumsum(counts[:, ::-1], -1)
    cut = jnp.floor(cutoff * image.shape[0] * image.shape[1])
    low = jnp.argmax(below > cut, -1)
    high = LEVELS - 1 - jnp.argmax(above > cut, -1)
    usable = high > low
    low, high = (level.astype(image.dtype) / (LEVELS - 1) for level in (low, high))
    stretched = (image - low) / jnp.where(usable, high - low, 1)
    return jnp.where(usable, jnp.clip(stretched, 0, 1), image)


def equalize(image: Array) -> Array:
    """Makes the levels of each channel equally frequent; a channel of one level stays."""
    levels = _levels(image)
    counts = _histograms(levels)
    last = LEVELS - 1 - jnp.argmax(counts[:, ::-1] > 0, -1)
    total = image.shape[0] * image.shape[1]
    step = (total - jnp.take_along_axis(counts, last[:, None], -1)) // (LEVELS - 1)
    below = jnp.cumsum(counts, -1) - counts
    table = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), LEVELS - 1)
    table = jnp.where(step > 0, table, jnp.arange(LEVELS))
    found = jax.vmap(lambda row, channel: row[channel], (0, -1), -1)(table, levels)
    return found.astype(image.dtype) / (LEVELS - 1)
