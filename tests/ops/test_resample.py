"""Resampling against scipy and against torch's conventions worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.ops import resample


@pytest.mark.parametrize("n", [5, 40, 256])
def test_gaussian_matrix_is_scipys_filter(n):
    signal = np.random.default_rng(0).normal(size=n)
    expected = ndimage.gaussian_filter1d(signal, 4, mode="reflect")
    np.testing.assert_allclose(resample.gaussian_matrix(n, 4) @ signal, expected, atol=1e-12)


def test_bilinear_half_pixel_by_hand():
    # Enlarging [0, 1] to 4: centres at -.25, .25, .75, 1.25, clamped at the edge.
    np.testing.assert_allclose(
        resample.bilinear_matrix(2, 4) @ [0, 1], [0, 0.25, 0.75, 1], atol=1e-15
    )


def test_bilinear_align_corners_by_hand():
    np.testing.assert_allclose(
        resample.bilinear_matrix(2, 4, align_corners=True) @ [0, 1], [0, 1 / 3, 2 / 3, 1]
    )


@pytest.mark.parametrize("size", [(28, 45), (4, 5), (4, 10)])  # the second are halves
@pytest.mark.parametrize("channels", [3, 10])  # less than the width and not less
def test_bilinear_equals_jax_image_resize(size, channels):
    def expected(maps):
        return jax.image.resize(maps, (2, *size, channels), "linear", antialias=False)

    with jax.enable_x64(True):
        maps = jax.random.normal(jax.random.key(0), (2, 8, 10, channels), jnp.float64)
        found, pull = jax.vjp(lambda maps: resample.resize_bilinear(maps, size), maps)
        np.testing.assert_allclose(found, expected(maps), atol=1e-13)
        gradient = jax.vjp(expected, maps)[1](found)[0]
        np.testing.assert_allclose(pull(found)[0], gradient, atol=1e-12)


def test_many_channels_stay_last_where_maps_are_enlarged():
    maps = jnp.zeros((2, 8, 10, 16))
    resize = jax.jit(lambda maps: resample.resize_bilinear(maps, (16, 20)))
    text = resize.lower(maps).compile().as_text()
    assert " transpose(" not in text and " dot(" in text


def test_upsample_and_smooth_is_both_steps():
    maps = np.random.default_rng(1).normal(size=(2, 16, 16)).astype(np.float32)
    large = jax.image.resize(maps, (2, 64, 64), "linear", antialias=False)
    expected = [ndimage.gaussian_filter(np.asarray(m, np.float64), 4) for m in large]
    np.testing.assert_allclose(
        resample.upsample_and_smooth(jnp.asarray(maps), (64, 64)), expected, atol=1e-5
    )


def test_nearest_repeats_for_whole_factors():
    image = jnp.arange(4.0).reshape(1, 2, 2, 1)
    expected = np.repeat(np.repeat(image, 3, 1), 3, 2)
    np.testing.assert_array_equal(resample.resize_nearest(image, (6, 6)), expected)


@pytest.mark.parametrize("shape", [(2, 7, 4, 3), (1, 1, 2, 1)])
def test_double_size_is_bilinear_with_aligned_corners(shape):
    images = np.random.default_rng(0).normal(size=shape)
    expected = images
    for axis in (1, 2):  # sample by sample: output i lies at i (n - 1) / (2 n - 1)
        n = shape[axis]
        at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
        expected = np.apply_along_axis(lambda v, at=at: np.interp(at, range(len(v)), v), axis,
                                       expected)  # fmt: skip
    found = resample.double_size(jnp.asarray(images, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 4, 3), (1, 1, 2, 1)])
def test_gradient_of_double_size_is_that_of_the_matrices(shape):
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        images, size = jnp.asarray(rng.normal(size=shape)), (2 * shape[1], 2 * shape[2])
        gradient = rng.normal(size=(shape[0], *size, shape[3]))
        found, expected = (
            jax.vjp(function, images)[1](gradient)[0]
            for function in (
                resample.double_size,
                lambda x: resample.resize_bilinear(x, size, align_corners=True),
            )
        )
    np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("size", [(14, 18), (7, 9), (10, 23), (3, 4)])
def test_leading_axes_are_resized_alike(size):
    maps = np.random.default_rng(5).normal(size=(7, 9, 3)).astype(np.float32)
    expected = resample.resize_bilinear(maps[None], size)[0]
    np.testing.assert_allclose(resample.resize_leading(maps, size), expected, atol=1e-6)
