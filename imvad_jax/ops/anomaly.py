"""Synthetic anomalies: a texture laid over a good image in the shape of Perlin noise.

Zavrtanik, Kristan, Skocaj, "DRAEM", ICCV 2021, section 3.3; probabilities and ranges as in the
authors' code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from imvad_jax.ops import affine, photometric
from imvad_jax.ops.perlin import LARGEST_EXPONENT, THRESHOLD, perlin_mask
from imvad_jax.ops.textures import SHARPEST, draw_textures

ROTATED = 0.3  # probability that the image itself is turned
LARGEST_ANGLE = np.pi / 2
ANOMALOUS = 0.5  # probability that an image gets an anomaly
LARGEST_BETA = 0.8  # of the image's share in its anomaly
VISIBLE = 8 / 255  # change of a pixel's value; of own textures, less is not marked as an anomaly
REBRIGHTENED = 0.5  # range of the factor on an image that becomes its own texture, half its offset
# Own textures lie in few large shapes, as the breaks that they teach do: at most 2^2 cells an axis,
# and about three times the area.
OWN_EXPONENT, OWN_THRESHOLD = 2, 0.3


class SyntheticAnomaly(NamedTuple):
    """A batch of images with and without their anomalies."""

    original: Array  # [B, H, W, 3], perhaps turned
    augmented: Array  # [B, H, W, 3]
    mask: Array  # bool [B, H, W]; empty for about half of the images
    texture: Array  # [B, H, W, 3], of which the mask shows a part; of images without one, any


class _Drawn(NamedTuple):
    """What is drawn for an image before its texture, of which the last two decide."""

    for_texture: Array  # keys
    key: Array
    for_mask: Array
    for_own: Array
    numbers: Array  # [4], uniform in [0, 1): turned, by how much, anomalous, the image's share
    is_anomalous: Array  # bool []
    is_own: Array  # bool []: the texture is the image itself


def blend(image: Array, texture: Array, mask: Array, beta: Array) -> Array:
    """`(1 - M) I + M ((1 - beta) T + beta I)` of `[H, W, C]`, mask bool `[H, W]` (equation 2)."""
    return jnp.where(mask[..., None], (1 - beta) * texture + beta * image, image)


def turn_some(numbers: Array, image: Array) -> Array:
    """Rotates the image by up to 90 degrees with probability .3; the background is black.

    `numbers` `[2]` are uniform in [0, 1).
    """
    angle = LARGEST_ANGLE * (2 * numbers[1] - 1)
    return jnp.where(numbers[0] < ROTATED, affine.rotate(image, angle), image)


def shift_brightness(numbers: Array, image: Array, largest: float) -> Array:
    """All values of `[H, W, C]` times one factor, plus one offset; clipped to [0, 1].

    The factor (the exposure) lies within `largest` of 1, the offset within half of it of 0.
    `numbers` `[2]` are uniform in [0, 1).
    """
    factor, offset = largest * (2 * numbers - 1)
    return photometric.multiply_add(image, 1 + factor, offset / 2)


def match_brightness(texture: Array, image: Array, mask: Array) -> Array:
    """The texture `[H, W, C]` moved to the mean of the image within a mask, bool `[H, W]`.

    One offset moves all values, so that colours and contrasts stay; clipped to [0, 1], so that the
    means agree but for what is clipped. An empty mask changes nothing.
    """
    weights = mask[..., None].astype(image.dtype)
    covered = jnp.maximum(weights.sum() * image.shape[-1], 1)
    offset = jnp.sum((image - texture) * weights) / covered
    return jnp.clip(texture + offset, 0, 1)


def rearrange(key: Array, image: Array) -> Array:
    """Makes a texture from a square image `[S, S, 3]`: mirrored, shifted, brighter or darker.

    Such a texture has the colours of good parts in the wrong place, as breaks and misprints have
    (after the structural anomalies of Yang et al., "MemSeg", 2022, arXiv 2205.00908).
    """
    size = image.shape[0]
    uniform = jax.random.uniform(key, (7,))
    for coin, mirrored in enumerate((jnp.flipud, jnp.fliplr, lambda x: x.swapaxes(0, 1))):
        image = jnp.where(uniform[coin] < 0.5, mirrored(image), image)
    image = jnp.roll(image, jnp.floor(size * uniform[3:5]).astype(jnp.int32), (0, 1))
    factor, offset = REBRIGHTENED * (2 * uniform[5:] - 1)
    return photometric.multiply_add(image, 1 + factor, offset / 2)


def synthesize(
    keys: Array,
    images: Array,
    pictures: Array | None = None,
    *,
    own: float = 0.0,
    anomalous: float = ANOMALOUS,
    sharpest: float = SHARPEST,
    shift: float = 0.0,
    matched: float = 0.0,
) -> SyntheticAnomaly:
    """Draws an anomaly for each image of `[B, S, S, 3]` with probability `anomalous`.

    All that happens to an image comes from its key. Textures are parts of `pictures` (uint8
    `[T, S, S, 3]`) or drawn, each changed by three photometric operations (`sharpest`: see
    `textures.change_texture`); with probability `own`, the image itself `rearrange`d, in a large
    shape. Before anything else happens to it, an image is made brighter or darker as a whole, with
    and without its anomaly alike (`shift_brightness` by up to `shift`). With probability `matched`
    the texture has the mean of the place that it covers. Where `own` or `matched` is positive, only
    visible changes are in the mask: of a plain background laid over itself, nothing tells which
    part is anomalous.
    """
    size = images.shape[1]

    def draw(key):
        for_texture, key, for_mask = jax.random.split(key, 3)
        coin, for_own = jax.random.split(jax.random.fold_in(key, 1))
        numbers = jax.random.uniform(key, (4,))
        is_own = jax.random.uniform(coin) < own
        return _Drawn(for_texture, key, for_mask, for_own, numbers, numbers[2] < anomalous, is_own)

    drawn = jax.vmap(draw)(keys)
    wanted = drawn.is_anomalous & ~drawn.is_own
    textures = draw_textures(drawn.for_texture, wanted, size, pictures, sharpest)

    def one(drawn, image, texture):
        if shift:  # before the image is turned: what lies around it stays black
            light = jax.random.uniform(jax.random.fold_in(drawn.key, 2), (2,))
            image = shift_brightness(light, image, shift)
        image = turn_some(drawn.numbers[:2], image)
        largest, threshold = LARGEST_EXPONENT, THRESHOLD
        if own:
            texture = jnp.where(drawn.is_own, rearrange(drawn.for_own, image), texture)
            largest = jnp.where(drawn.is_own, OWN_EXPONENT, largest)
            threshold = jnp.where(drawn.is_own, OWN_THRESHOLD, threshold)
        mask = perlin_mask(drawn.for_mask, size, largest, threshold) & drawn.is_anomalous
        if matched:
            is_matched = jax.random.uniform(jax.random.fold_in(drawn.key, 3)) < matched
            texture = jnp.where(is_matched, match_brightness(texture, image, mask), texture)
        augmented = blend(image, texture, mask, LARGEST_BETA * drawn.numbers[3])
        if own or matched:
            mask &= jnp.abs(augmented - image).max(-1) > VISIBLE
        return SyntheticAnomaly(image, augmented, mask, texture)

    return jax.vmap(one)(drawn, images, textures)


def show(
    key: Array, image: Array, pictures: Array | None = None, own: float = 0.0, matched: float = 0.0
) -> dict[str, Array]:
    """Returns the steps of one anomaly on `[S, S, 3]` as images `[S, S, 3]` by name."""
    found = synthesize(key[None], image[None], pictures, own=own, matched=matched, anomalous=1.0)
    mask = jnp.repeat(found.mask[..., None], 3, -1).astype(image.dtype)
    return {name: value[0] for name, value in found._replace(mask=mask)._asdict().items()}
