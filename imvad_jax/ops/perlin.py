"""Perlin noise under jit, its resolution drawn, too: the shapes of DRAEM's anomalies.

Perlin, "Improving Noise", SIGGRAPH 2002. Zavrtanik, Kristan, Skocaj, "DRAEM", ICCV 2021, section
3.3.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops import affine

LARGEST_EXPONENT = 5
CELLS = 2**LARGEST_EXPONENT  # of the finest lattice, an axis
LATTICE = (CELLS + 1, CELLS + 1)
THRESHOLD = 0.5  # noise above it is anomalous
LARGEST_ANGLE = np.pi / 2  # of the rotation of the noise


def fade(t: Array) -> Array:
    """Perlin's quintic `6 t^5 - 15 t^4 + 10 t^3`: from 0 to 1 with two zero derivatives each."""
    return t**3 * (t * (6 * t - 15) + 10)


def _axis(size: int, resolution: Array) -> tuple[Array, Array]:
    """Weights `[size, CELLS + 1]` of the lattice for each pixel, and the same times the distance.

    Pixel i lies at `i * resolution / size` of the lattice, between two of its rows.
    """
    # Whole numbers as far as possible, so that pixels on the lattice are exactly on it.
    at = jnp.arange(size) * resolution
    row, t = at // size, (at % size).astype(jnp.float32) / size
    lattice = jnp.arange(CELLS + 1)
    low, high = (lattice == (row + step)[:, None] for step in (0, 1))
    weight_low, weight_high = (1 - fade(t))[:, None], fade(t)[:, None]
    weights = jnp.where(low, weight_low, 0) + jnp.where(high, weight_high, 0)
    distances = jnp.where(low, weight_low * t[:, None], 0)
    distances += jnp.where(high, weight_high * (t[:, None] - 1), 0)
    return weights, distances


def perlin_of(angles: Array, size: int, resolution: Array) -> Array:
    """Perlin noise `[size, size]` times sqrt(2), in [-1, 1].

    `angles` `[33, 33]`: of the unit gradients of the lattice, of which a coarse one uses the first.
    `resolution` `[2]`: cells of the lattice along rows and columns, 1 ... 32; may be traced. Noise
    is the sum over the four corners of (gradient . distance) by the product of their weights, and
    the weights of an axis make a matrix, so that it is two products of matrices and no gather.
    """
    rows, row_distances = _axis(size, resolution[0])
    columns, column_distances = _axis(size, resolution[1])

    def between(left: Array, gradients: Array, right: Array) -> Array:
        half = jnp.matmul(left, gradients, precision=lax.Precision.HIGHEST)
        return jnp.matmul(half, right.T, precision=lax.Precision.HIGHEST)

    noise = between(row_distances, jnp.cos(angles), columns)
    noise += between(rows, jnp.sin(angles), column_distances)
    return np.sqrt(2) * noise


def power_of_two(uniform: Array, largest: int | Array) -> Array:
    """2^i, i in {0 ... largest} equally likely where `uniform` is so in [0, 1); int32."""
    return 2 ** jnp.floor(uniform * (largest + 1)).astype(jnp.int32)


def perlin_mask(
    key: Array,
    size: int,
    largest: int | Array = LARGEST_EXPONENT,
    threshold: float | Array = THRESHOLD,
) -> Array:
    """The shape of an anomaly, bool `[size, size]`: rotated noise of drawn resolution, thresholded.

    Cells by axis are 2^i, i uniform in {0 ... `largest`}, at most 5; rotated by a uniform angle
    within 90 degrees, zeros around. May be empty.
    """
    # One draw of all numbers: each call of the generator is compiled anew.
    uniform = jax.random.uniform(key, (3 + LATTICE[0] * LATTICE[1],))
    resolution = power_of_two(uniform[:2], largest)
    angle = LARGEST_ANGLE * (2 * uniform[2] - 1)
    noise = perlin_of(2 * np.pi * uniform[3:].reshape(LATTICE), size, resolution)
    return affine.rotate(noise[..., None], angle)[..., 0] > threshold
