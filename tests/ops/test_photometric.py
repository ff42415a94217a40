"""Photometric operations against Pillow's, which have 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from imvad_jax.ops import photometric

LEVEL = 1 / 255


@pytest.fixture(scope="module")
def picture():
    """A picture uint8 `[33, 40, 3]` with smooth parts, noise, and other ranges by channel."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:33, :40]
    waves = np.stack([rows * 5, 60 + columns * 3, 128 + 60 * np.sin(rows / 4)], -1)
    return np.clip(waves + rng.normal(0, 12, waves.shape), 20, 235).astype(np.uint8)


def ours(function, picture, *arguments):
    return np.asarray(jax.jit(function)(jnp.asarray(picture / 255, jnp.float32), *arguments))


def theirs(function, picture, *arguments):
    return np.asarray(function(Image.fromarray(picture), *arguments)) / 255


def assert_changed(found, picture):
    assert np.abs(found - picture / 255).mean() > 2 * LEVEL


@pytest.mark.parametrize("threshold", [32, 100, 128])
def test_solarize(picture, threshold):
    found = ours(photometric.solarize, picture, threshold / 255)
    np.testing.assert_allclose(found, theirs(ImageOps.solarize, picture, threshold), atol=1e-6)
    assert_changed(found, picture)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_posterize(picture, bits):
    found = ours(photometric.posterize, picture, bits)
    np.testing.assert_allclose(found, theirs(ImageOps.posterize, picture, bits), atol=1e-6)


def test_invert(picture):
    found = ours(photometric.invert, picture)
    np.testing.assert_allclose(found, theirs(ImageOps.invert, picture), atol=1e-6)


@pytest.mark.parametrize("percent", [0, 3, 20])
def test_autocontrast(picture, percent):
    found = ours(photometric.autocontrast, picture, percent / 100)
    expected = theirs(ImageOps.autocontrast, picture, percent)
    np.testing.assert_allclose(found, expected, atol=1.01 * LEVEL)  # Pillow truncates
    assert_changed(found, picture)


def test_equalize(picture):
    found = ours(photometric.equalize, picture)
    np.testing.assert_allclose(found, theirs(ImageOps.equalize, picture), atol=1e-6)
    assert_changed(found, picture)


@pytest.mark.parametrize("seed", range(3))
def test_equalize_a_few_levels(seed):
    rng = np.random.default_rng(seed)
    picture = rng.choice(rng.integers(0, 256, 5), (20, 31, 3)).astype(np.uint8)
    found = ours(photometric.equalize, picture)
    np.testing.assert_allclose(found, theirs(ImageOps.equalize, picture), atol=1e-6)


@pytest.mark.parametrize("function", ["equalize", "autocontrast"])
def test_a_picture_of_one_colour_stays(function):
    picture = np.full((20, 20, 3), (10, 100, 200), np.uint8)
    arguments = (0.1,) if function == "autocontrast" else ()
    found = ours(getattr(photometric, function), picture, *arguments)
    np.testing.assert_allclose(found, picture / 255, atol=1e-6)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 3.0])
def test_sharpness(picture, factor):
    found = ours(photometric.sharpness, picture, factor)
    expected = theirs(lambda image: ImageEnhance.Sharpness(image).enhance(factor), picture)
    # Pillow rounds the smoothed image, whose error is multiplied, and truncates the result.
    np.testing.assert_allclose(found, expected, atol=(1.01 + 0.51 * abs(1 - factor)) * LEVEL)
    if factor != 1:
        assert_changed(found, picture)


def test_gamma_contrast_by_channel(picture):
    gamma = np.array([0.5, 1.0, 2.0], np.float32)
    found = ours(photometric.gamma_contrast, picture, gamma)
    np.testing.assert_allclose(found, (picture / 255) ** gamma, atol=1e-5)


@pytest.mark.parametrize("factor, offset", [(0.8, 0.1), (1.2, -0.1), (1.2, 0.1)])
def test_multiply_add(picture, factor, offset):
    found = ours(photometric.multiply_add, picture, factor, offset)
    np.testing.assert_allclose(found, np.clip(picture / 255 * factor + offset, 0, 1), atol=1e-6)
    assert_changed(found, picture)
