"""Perlin noise against its definition, pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.ops import perlin


def _noise(key, size, resolution):
    """Noise of gradients drawn at random."""
    angles = jax.random.uniform(key, perlin.LATTICE, maxval=2 * np.pi)
    return perlin.perlin_of(angles, size, resolution)


noise_of = jax.jit(_noise, static_argnums=1)


def pixel_by_pixel(key, size, resolution):
    """The noise from the gradients that `key` draws, float64."""
    angle = np.asarray(jax.random.uniform(key, (33, 33), maxval=2 * np.pi), np.float64)
    out = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        y, x = i * resolution[0] / size, j * resolution[1] / size
        total = 0
        for row in (int(y), int(y) + 1):
            for column in (int(x), int(x) + 1):
                dy, dx = y - row, x - column
                dot = np.cos(angle[row, column]) * dy + np.sin(angle[row, column]) * dx
                ty, tx = 1 - abs(dy), 1 - abs(dx)
                weight = np.prod([6 * t**5 - 15 * t**4 + 10 * t**3 for t in (ty, tx)])
                total += weight * dot
        out[i, j] = np.sqrt(2) * total
    return out


@pytest.mark.parametrize("resolution", [(1, 1), (4, 2), (32, 8), (3, 5)])
def test_noise_is_the_faded_sum_over_four_corners(resolution):
    key = jax.random.key(3)
    expected = pixel_by_pixel(key, 32, resolution)
    found = noise_of(key, 32, jnp.asarray(resolution))
    if resolution != (32, 8):
        assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_noise_is_zero_at_lattice_points_and_stays_within_one():
    for number, resolution in enumerate([(1, 1), (2, 8), (16, 4), (32, 32)]):
        found = np.asarray(noise_of(jax.random.key(number), 64, jnp.asarray(resolution)))
        lattice = found[:: 64 // resolution[0], :: 64 // resolution[1]]
        np.testing.assert_array_equal(lattice, np.zeros(resolution))
        assert 0.2 < np.abs(found).max() <= 1


def test_a_key_gives_one_noise_and_another_key_another():
    first, again, other = (
        np.asarray(noise_of(jax.random.key(k), 32, jnp.asarray([4, 4]))) for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_resolutions_are_powers_of_two_equally_likely():
    drawn = np.asarray(perlin.power_of_two(jax.random.uniform(jax.random.key(0), (6000,)), 5))
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1, 2, 4, 8, 16, 32]
    np.testing.assert_allclose(counts, 1000, atol=5 * np.sqrt(1000 * 5 / 6))


def test_the_mask_is_the_rotated_noise_above_one_half():
    mask_of = jax.jit(perlin.perlin_mask, static_argnums=1)
    noise_of = jax.jit(perlin.perlin_of, static_argnums=1)
    areas, resolutions = [], []
    for seed in range(12):
        key = jax.random.key(seed)
        drawn = np.asarray(jax.random.uniform(key, (3 + 33 * 33,)))
        resolutions.append(2 ** np.floor(6 * drawn[:2]).astype(int))
        noise = noise_of(2 * np.pi * drawn[3:].reshape(33, 33), 64, resolutions[-1])
        turned = ndimage.rotate(
            np.asarray(noise), 180 * drawn[2] - 90, reshape=False, order=1, mode="grid-constant"
        )
        mask = np.asarray(mask_of(key, 64))
        assert mask.dtype == bool and mask.shape == (64, 64)
        sure = np.abs(turned - 0.5) > 1e-3  # scipy rounds its coordinates differently
        np.testing.assert_array_equal(mask[sure], (turned > 0.5)[sure])
        areas.append(mask.mean())
    assert 0.01 < np.mean(areas) < 0.1 and max(areas) > 2 * min(areas)  # not vacuous
    assert len({tuple(r) for r in resolutions}) > 6
