"""Colour of one RGB image `[H, W, 3]` in [0, 1]: HSV, grey, and torchvision's ColorJitter in float.

torchvision jitters 8-bit images and rounds after every step; here nothing is rounded.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's mode L


def rgb_to_hsv(image: Array) -> Array:
    """Hue (in turns, [0, 1)), saturation and value `[..., 3]` of RGB `[..., 3]`, as colorsys."""
    red, green, blue = (image[..., i] for i in range(3))
    value = image.max(-1)
    spread = value - image.min(-1)
    scale = 1 / jnp.where(spread > 0, spread, 1)
    hue = jnp.where(
        value == red,
        (green - blue) * scale,
        jnp.where(value == green, 2 + (blue - red) * scale, 4 + (red - green) * scale),
    )
    saturation = spread / jnp.where(value > 0, value, 1)
    return jnp.stack([(hue / 6) % 1, saturation, value], -1)


def hsv_to_rgb(hsv: Array) -> Array:
    """The inverse of `rgb_to_hsv`; any hue counts modulo one turn."""
    hue, saturation, value = (hsv[..., i, None] for i in range(3))
    sector = (jnp.array([5.0, 3.0, 1.0], hsv.dtype) + 6 * hue) % 6
    return value * (1 - saturation * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1))


def to_gray(image: Array) -> Array:
    """Grey values `[H, W, 1]` of an RGB image, weighted as in ITU-R 601."""
    return jnp.sum(image * LUMA.astype(image.dtype), -1, keepdims=True)


def _blend(image: Array, own, gray, mean, where: Array | None = None) -> Array:
    """`own * image + gray * (its grey) + mean * (its mean grey, over `where`)`, clipped."""
    grays = to_gray(image)
    level = grays.mean(where=None if where is None else where[..., None])
    return jnp.clip(own * image + gray * grays + mean * level, 0, 1)


def adjust_saturation(image: Array, factor: Array) -> Array:
    """Factor 0 gives the grey image, 1 the image; clipped to [0, 1]."""
    return _blend(image, factor, 1 - factor, 0.0)


def adjust_hue(image: Array, shift: Array) -> Array:
    """Turns the hue by `shift` turns, in [-.5, .5]; saturation and value stay."""
    hue = jnp.zeros(3, image.dtype).at[0].set(shift)
    return hsv_to_rgb(rgb_to_hsv(image) + hue)


def jitter(
    key: Array,
    image: Array,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
    where: Array | None = None,
) -> Array:
    """Random brightness, contrast, saturation and hue in random order (torchvision's ColorJitter).

    Factors are uniform in [1 - b, 1 + b] (at least 0), the shift of the hue in [-hue, hue] turns.
    All 24 orders are equally likely: three of the adjustments are blends with other coefficients,
    so an order is a permutation of the coefficients and the number of blends before the hue.
    `where` bool `[H, W]`: the pixels that the contrast takes its mean over (None: all), so that
    these come out as if they were an image of their own.
    """
    # One draw for all: each call of the generator costs half a second to compile.
    drawn = jax.random.uniform(key, (8,), image.dtype)
    amounts = jnp.array([brightness, contrast, saturation], image.dtype)
    low, high = jnp.maximum(1 - amounts, 0), 1 + amounts
    factors = low + (high - low) * drawn[:3]
    shift = hue * (2 * drawn[3] - 1)
    gray = jnp.array([0, 0, 1], image.dtype) * (1 - factors)
    mean = jnp.array([0, 1, 0], image.dtype) * (1 - factors)
    coefficients = jnp.stack([factors, gray, mean], 1)[jnp.argsort(drawn[4:7])]
    before = jnp.sum(drawn[4:7] < drawn[7])  # blends that come before the hue
    unchanged = jnp.array([1, 0, 0], image.dtype)

    def blends(image, active):
        for own, used in zip(coefficients, active):
            own, gray, mean = jnp.where(used, own, unchanged)
            image = _blend(image, own, gray, mean, where)
        return image

    image = blends(image, jnp.arange(3) < before)
    image = adjust_hue(image, shift)
    return blends(image, jnp.arange(3) >= before)
