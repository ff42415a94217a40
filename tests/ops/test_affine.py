"""Sampling and rotation against scipy.ndimage and Pillow."""

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from imvad_jax.ops import affine


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 1, (14, 11, 3)).astype(np.float32)


@pytest.mark.parametrize("fill", [0.0, 0.7])
def test_samples_are_those_of_scipy(image, fill):
    rng = np.random.default_rng(1)
    rows = rng.uniform(-4, 18, (9, 8)).astype(np.float32)
    columns = rng.uniform(-4, 15, (9, 8)).astype(np.float32)
    rows[0], columns[0] = np.arange(8), np.arange(8)
    found = affine.sample_bilinear(image, rows, columns, fill)
    assert found.shape == (9, 8, 3)
    for channel in range(3):
        expected = ndimage.map_coordinates(
            image[..., channel], [rows, columns], order=1, mode="grid-constant", cval=fill
        )
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_far_outside_is_fill_by_channel(image):
    fill = np.array([0.1, 0.2, 0.3], np.float32)
    far = np.array([1e12, -1e12, -2.0], np.float32)
    np.testing.assert_allclose(affine.sample_bilinear(image, far, far, fill), [fill] * 3)


@pytest.mark.parametrize("degrees", [0, 17, 90, -135])
def test_rotation_is_that_of_scipy(image, degrees):
    found = affine.rotate(image, np.deg2rad(degrees), 0.4)
    expected = ndimage.rotate(
        image, degrees, reshape=False, order=1, mode="grid-constant", cval=0.4
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rotation_is_counter_clockwise_as_pillows(image):
    square = image[:11, :, 0]
    expected = Image.fromarray(square).rotate(30, Image.Resampling.BILINEAR)
    found = affine.rotate(square[..., None], np.deg2rad(30))[..., 0]
    inner = (slice(3, 8), slice(3, 8))
    np.testing.assert_allclose(found[inner], np.asarray(expected)[inner], atol=1e-3)


def test_a_batch_by_vmap(image):
    angles = np.array([0.3, -1.0], np.float32)
    batch = np.stack([image, image[::-1]])
    found = jax.jit(jax.vmap(affine.rotate))(batch, angles)
    for one, angle, turned in zip(batch, angles, found):
        np.testing.assert_allclose(turned, affine.rotate(one, angle), atol=1e-5)
