"""Geometric transforms of one image `[H, W, C]`: every output pixel looks up its source."""

import jax.numpy as jnp
from jax import Array


def sample_bilinear(image: Array, rows: Array, columns: Array, fill: float | Array = 0.0) -> Array:
    """Values `[..., C]` of the image at `rows`, `columns` `[...]` (pixels; centres are integers).

    The image is continued by `fill` (a number or `[C]`), so that its border fades over one pixel
    (scipy.ndimage.map_coordinates, order 1, mode "grid-constant").
    """
    image = jnp.asarray(image)
    height, width = image.shape[:2]
    top, left = jnp.floor(rows), jnp.floor(columns)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    # Far outside, a float could leave the range of an integer; from one pixel on all is `fill`.
    top = jnp.clip(top, -2, height).astype(jnp.int32)
    left = jnp.clip(left, -2, width).astype(jnp.int32)

    def pixel(row, column):
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = image[jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)]
        return jnp.where(inside[..., None], found, fill)

    upper = pixel(top, left) * (1 - right) + pixel(top, left + 1) * right
    lower = pixel(top + 1, left) * (1 - right) + pixel(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def rotate(image: Array, angle: Array, fill: float | Array = 0.0) -> Array:
    """The image turned counter-clockwise by `angle` radians about its centre, at the same size.

    Bilinear; what comes from outside is `fill` (a number or `[C]`).
    """
    height, width = image.shape[:2]
    down = jnp.arange(height)[:, None] - (height - 1) / 2
    right = jnp.arange(width)[None, :] - (width - 1) / 2
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    rows = right * sine + down * cosine + (height - 1) / 2
    columns = right * cosine - down * sine + (width - 1) / 2
    return sample_bilinear(image, rows, columns, fill)
