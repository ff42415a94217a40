"""CutPaste and its scar: a piece of an image, jittered in colour, pasted elsewhere in it.

Li, Sohn, Yoon, Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization", CVPR 2021, arXiv 2104.04015, section 2.2 and appendix. One image `[H, W, 3]` in
[0, 1] at a time; shapes are static: pieces are moved by gathering and cut out by comparing
coordinates.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import affine, color

SCAR_IMAGE = 256  # pixels; the sizes of a scar are given for an image of this size

# Of places in pixels: a TPU's products of bfloat16 would be a pixel off.
_product = partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def cutpaste(
    key: Array,
    image: Array,
    area: tuple[float, float] = (0.02, 0.15),
    aspect: float = 0.3,
    jitter: float = 0.1,
) -> tuple[Array, Array]:
    """Copies a rectangle of the image to another place in it; both lie fully inside.

    Args:
      key: of all that is random.
      image: RGB `[H, W, 3]` in [0, 1].
      area: least and largest share of the image that the rectangle covers, uniform between.
      aspect: width by height is log-uniform in [aspect, 1 / aspect].
      jitter: strength of the colour jitter of the rectangle (brightness, contrast, saturation,
        hue in turns).

    Returns:
      The image with the rectangle pasted, and where that is: bool `[H, W]`.
    """
    image, frame = jnp.asarray(image), jnp.array(image.shape[:2])
    key, color_key = jax.random.split(key)
    drawn = jax.random.uniform(key, (6,))
    pixels = (area[0] + (area[1] - area[0]) * drawn[0]) * frame.prod()
    ratio = aspect ** (2 * drawn[1] - 1)  # width by height
    extent = jnp.sqrt(pixels * jnp.stack([1 / ratio, ratio]))
    extent = jnp.clip(jnp.round(extent).astype(jnp.int32), 1, frame)
    source = _corner(drawn[2:4], frame - extent)
    target = _corner(drawn[4:6], frame - extent)
    rows, columns = (jnp.arange(n) for n in image.shape[:2])
    mask = _between(rows, target[0], extent[0])[:, None] & _between(columns, target[1], extent[1])
    shift = source - target
    moved = image[jnp.clip(rows + shift[0], 0, frame[0] - 1)]
    moved = moved[:, jnp.clip(columns + shift[1], 0, frame[1] - 1)]
    moved = color.jitter(
        color_key, moved, brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter,
        where=mask,
    )  # fmt: skip
    return jnp.where(mask[..., None], moved, image), mask


def scar(
    key: Array,
    image: Array,
    *,
    width: tuple[float, float] = (2.0, 16.0),
    length: tuple[float, float] = (10.0, 25.0),
    rotation: float = 45.0,
    jitter: float = 0.1,
    hard: bool = False,
) -> tuple[Array, Array]:
    """Copies a narrow upright rectangle of the image, turned, to another place in it.

    The turned rectangle lies fully inside; its edge is blended over one pixel, if it is not `hard`.

    Args:
      key: of all that is random.
      image: RGB `[H, W, 3]` in [0, 1].
      width: least and largest width in pixels of an image of 256, uniform between.
      length: the same of the length.
      rotation: the angle is uniform within this, degrees to either side.
      jitter: strength of the colour jitter of the rectangle, as in `cutpaste`.
      hard: the rectangle covers the pixels whose centres lie in it, wholly, and each shows the
        nearest pixel of the source, as Pillow turns pictures; else all is interpolated.

    Returns:
      The image with the rectangle pasted, and the pixels it touches: bool `[H, W]`.
    """
    image, frame = jnp.asarray(image), jnp.array(image.shape[:2])
    key, color_key = jax.random.split(key)
    drawn = jax.random.uniform(key, (7,))
    scale = min(image.shape[:2]) / SCAR_IMAGE
    low, high = (scale * jnp.array(pair) for pair in zip(length, width))
    extent = jnp.round(low + (high - low) * drawn[0:2])
    extent = jnp.clip(extent.astype(jnp.int32), 1, frame)  # length and width
    source = _corner(drawn[2:4], frame - extent)
    angle = jnp.deg2rad(rotation) * (2 * drawn[4] - 1)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.array([[cosine, sine], [-sine, cosine]])
    # The centre keeps the turned rectangle inside, where it fits at all.
    room = jnp.minimum(_product(jnp.abs(turn), extent) / 2, frame / 2)
    center = room + (frame - 2 * room) * drawn[5:7] - 0.5
    rows, columns = (jnp.arange(n) for n in image.shape[:2])
    away = jnp.stack(jnp.meshgrid(rows - center[0], columns - center[1], indexing="ij"), -1)
    along = _product(away, turn.T)  # position within the upright rectangle, from its centre
    alpha = jnp.clip(extent / 2 + 0.5 - jnp.abs(along), 0, 1).prod(-1)
    if hard:
        alpha = (jnp.abs(along) <= extent / 2).all(-1).astype(image.dtype)
    mask = alpha > 0
    reach = (extent - 1) / 2  # the outermost pixel centres of the rectangle
    taken = source + reach + jnp.clip(along, -reach, reach)
    if hard:
        taken = jnp.round(taken)
    moved = affine.sample_bilinear(image, taken[..., 0], taken[..., 1])
    moved = color.jitter(
        color_key, moved, brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter,
        where=mask,
    )  # fmt: skip
    blended = jnp.clip(image + alpha[..., None] * (moved - image), 0, 1)
    return jnp.where(mask[..., None], blended, image), mask


def _corner(drawn: Array, room: Array) -> Array:
    """Integers in 0 ... `room` from numbers uniform in [0, 1)."""
    return (drawn * (room + 1)).astype(jnp.int32)


def _between(positions: Array, start: Array, extent: Array) -> Array:
    return (positions >= start) & (positions < start + extent)
