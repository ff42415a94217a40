"""Textures for synthetic anomalies, drawn by the program where no folder of them is given.

DRAEM (Zavrtanik et al., ICCV 2021) takes photographs of the Describable Textures Dataset, each
changed by three of ten photometric operations. These stand in for the photographs.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops import affine, color, photometric
from imvad_jax.ops.perlin import CELLS, LATTICE, perlin_of, power_of_two

CHANNELS, OCTAVES = 3, 4  # of the noise that a texture is made of
NUMBERS = 16  # uniform numbers that say what the texture is
CHANGES = 3  # operations on each texture, all different
SHARPEST = 3.0  # the largest factor of the sharpness, where nothing else is said


def _between(uniform: Array, low: float, high: float) -> Array:
    return low + (high - low) * uniform


def _mix(share: Array, colors: Array) -> Array:
    """`share` `[H, W]` in [0, 1] from the first to the second of two colours `[6]`."""
    return colors[:3] + share[..., None] * (colors[3:] - colors[:3])


def _wave(numbers: Array, noise: Array) -> Array:
    """Bands `[S, S]` in 0 ... 1, bent by noise; numbers: angle, width, sharpness, bend."""
    size = noise.shape[0]
    angle = np.pi * numbers[0]
    periods = 2 ** _between(numbers[1], 1, 5)  # across the image
    edge = 2 ** _between(numbers[2], 0, 4)
    at = jnp.arange(size) / size
    along = jnp.cos(angle) * at[:, None] + jnp.sin(angle) * at[None]
    phase = 2 * np.pi * periods * along + _between(numbers[3], 0, 5) * noise
    return jnp.clip(0.5 + edge * jnp.sin(phase), 0, 1)


# Each kind makes a texture [S, S, 3] from octave noise [S, S, 3] in 0 ... 1, white noise [S, S] and
# numbers [13], all uniform; the first six are two colours.


def _clouds(noise, white, numbers):
    return noise


def _stripes(noise, white, numbers):
    return _mix(_wave(numbers[6:], noise[..., 0]), numbers[:6])


def _checks(noise, white, numbers):
    a, b = _wave(numbers[6:], noise[..., 0]), _wave(numbers[9:], noise[..., 1])
    return _mix(a + b - 2 * a * b, numbers[:6])


def _blobs(noise, white, numbers):
    level = _between(numbers[6], 0.35, 0.65)
    share = jnp.clip(0.5 + 20 * (noise[..., 0] - level), 0, 1)
    return jnp.clip(_mix(share, numbers[:6]) + 0.3 * (noise[..., 1:2] - 0.5), 0, 1)


def _grains(noise, white, numbers):
    share = numbers[6]
    return _mix(share * noise[..., 0] + (1 - share) * white, numbers[:6])


def _even(noise, white, numbers):
    return _mix(0.1 * noise[..., 0], numbers[:6])


KINDS = (_clouds, _stripes, _checks, _blobs, _grains, _even)


def _octaves(uniform: Array, resolution: Array, size: int) -> Array:
    """Perlin noise of a resolution and finer ones from `[OCTAVES, 33, 33]`: `[size, size]`."""

    def octave(number, angles):
        cells = jnp.minimum(resolution * 2**number, CELLS)
        return 0.6**number * perlin_of(2 * np.pi * angles, size, cells)

    noise = jax.vmap(octave)(jnp.arange(OCTAVES), uniform).sum(0)
    return (noise - noise.min()) / jnp.maximum(noise.max() - noise.min(), 1e-6)


def draw_texture(key: Array, size: int) -> Array:
    """A texture `[size, size, 3]` in [0, 1] of a kind drawn at random.

    Colour clouds of Perlin noise in octaves, bent stripes, checks, blobs, grains, or nearly one
    colour, as of holes and stains. A third of them are grey, or else colour alone would tell an
    anomaly on grey parts.
    """
    lattices = (CHANNELS, OCTAVES, *LATTICE)
    # One draw of all numbers: each call of the generator is compiled anew.
    uniform = jax.random.uniform(key, (NUMBERS + size**2 + math.prod(lattices),))
    numbers, white, angles = jnp.split(uniform, (NUMBERS, NUMBERS + size**2))
    resolution = power_of_two(numbers[1:3], 3)
    noise = jax.vmap(_octaves, (0, None, None), -1)(angles.reshape(lattices), resolution, size)
    kind = jnp.floor(numbers[0] * len(KINDS)).astype(jnp.int32)
    texture = lax.switch(kind, KINDS, noise, white.reshape(size, size), numbers[3:])
    saturation = jnp.maximum(_between(numbers[-1], -0.5, 1), 0)
    return color.adjust_saturation(texture, saturation)


# Each operation takes uniform numbers [4] and the image; ranges of the official code (imgaug).


def _gamma(numbers, image):
    return photometric.gamma_contrast(image, _between(numbers[:3], 0.5, 2))


def _brightness(numbers, image):
    offset = _between(numbers[1], -30 / 255, 30 / 255)
    return photometric.multiply_add(image, _between(numbers[0], 0.8, 1.2), offset)


def _sharpness(numbers, image, largest=SHARPEST):
    return photometric.sharpness(image, _between(numbers[0], 0, largest))


def _hue_and_saturation(numbers, image):
    # A turn of the hue has 255 steps, as the saturation's range has.
    shift = _between(numbers[:2], -50 / 255, 50 / 255)
    hue, saturation, value = jnp.moveaxis(color.rgb_to_hsv(image), -1, 0)
    saturation = jnp.clip(saturation + shift[1], 0, 1)
    return color.hsv_to_rgb(jnp.stack([hue + shift[0], saturation, value], -1))


def _solarize(numbers, image):
    found = photometric.solarize(image, _between(numbers[0], 32 / 255, 128 / 255))
    return jnp.where(numbers[1] < 0.5, found, image)


def _posterize(numbers, image):
    return photometric.posterize(image, 1 + jnp.floor(8 * numbers[0]).astype(jnp.int32))


def _invert(numbers, image):
    return photometric.invert(image)


def _autocontrast(numbers, image):
    return photometric.autocontrast(image, _between(numbers[0], 0, 0.2))


def _equalize(numbers, image):
    return photometric.equalize(image)


def _rotate(numbers, image):
    return affine.rotate(image, _between(numbers[0], -np.pi / 4, np.pi / 4))


OPERATIONS = (
    _gamma, _brightness, _sharpness, _hue_and_saturation, _solarize, _posterize, _invert,
    _autocontrast, _equalize, _rotate,
)  # fmt: skip


def draw_changes(key: Array) -> tuple[Array, Array]:
    """Three different of the ten operations in random order, `[3]`, and their numbers `[3, 4]`."""
    uniform = jax.random.uniform(key, (len(OPERATIONS) + 4 * CHANGES,))
    _, chosen = lax.top_k(uniform[: len(OPERATIONS)], CHANGES)
    return chosen, uniform[len(OPERATIONS) :].reshape(CHANGES, 4)


def change_texture(key: Array, texture: Array, sharpest: float = SHARPEST) -> Array:
    """Three different of the ten operations on a texture `[H, W, 3]`, in random order.

    `sharpest` is the largest factor of the sharpness: 0 blurs, 1 changes nothing.
    """
    operations = [
        functools.partial(_sharpness, largest=sharpest) if operation is _sharpness else operation
        for operation in OPERATIONS
    ]

    def change(image, which):
        return lax.switch(which[0], operations, which[1], image), None

    return lax.scan(change, texture, draw_changes(key))[0]


def draw_textures(
    keys: Array,
    wanted: Array,
    size: int,
    pictures: Array | None = None,
    sharpest: float = SHARPEST,
) -> Array:
    """One changed texture per key: `[B, size, size, 3]` in [0, 1]; black where not `wanted`.

    From `pictures` (uint8 `[T, size, size, 3]`) one at random, or drawn where there are none. Image
    after image: over a batch at once, a switch would compute every operation for every image, ten
    where three are wanted. `wanted` is bool `[B]`; the others are not computed.
    """

    def one(key):
        for_source, for_change = jax.random.split(key)
        if pictures is None:
            texture = draw_texture(for_source, size)
        else:
            number = jax.random.randint(for_source, (), 0, pictures.shape[0])
            texture = pictures[number].astype(jnp.float32) / 255
        return change_texture(for_change, texture, sharpest)

    def none(key):
        return jnp.zeros((size, size, CHANNELS))

    return lax.map(lambda each: lax.cond(each[1], one, none, each[0]), (keys, wanted))
