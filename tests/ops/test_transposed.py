"""Transposed convolution against its definition: scatter and add, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops.convolution import convolve_transposed

GEOMETRIES = [((4, 4), 2, 1), ((3, 3), 1, 1), ((5, 2), 1, 0), ((3, 3), 2, 1), ((2, 2), 3, 0)]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def scattered(x, kernel, stride, padding):
    """PyTorch's ConvTranspose2d of `[B, H, W, C]`: pixel by pixel, then the border is cut off."""
    batch, rows, columns, _ = x.shape
    high, wide, _, features = kernel.shape
    out = np.zeros((batch, stride * (rows - 1) + high, stride * (columns - 1) + wide, features))
    for i in range(rows):
        for j in range(columns):
            window = out[:, stride * i : stride * i + high, stride * j : stride * j + wide]
            window += np.einsum("bc,uvcd->buvd", x[:, i, j], kernel)
    stop = [side - padding for side in out.shape[1:3]]
    return out[:, padding : stop[0], padding : stop[1]]


@pytest.mark.parametrize("window, stride, padding", GEOMETRIES)
def test_every_pixel_adds_its_window(window, stride, padding):
    x, kernel = normal(2, 3, 4, 3), normal(*window, 3, 5, seed=1)
    found = convolve_transposed(
        jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride, padding
    )
    np.testing.assert_allclose(found, scattered(x, kernel, stride, padding), atol=1e-5)


def test_window_4_stride_2_doubles_and_a_single_pixel_becomes_its_window():
    double = convolve_transposed(jnp.ones((1, 7, 5, 2)), jnp.ones((4, 4, 2, 3)), 2, 1)
    assert double.shape == (1, 14, 10, 3)
    kernel = normal(8, 8, 2, 3)
    found = convolve_transposed(
        jnp.asarray([[[[2.0, -1.0]]]]), jnp.asarray(kernel, jnp.float32), 1, 0
    )
    np.testing.assert_allclose(found[0], 2 * kernel[:, :, 0] - kernel[:, :, 1], atol=1e-5)


@pytest.mark.parametrize("window, stride, padding", GEOMETRIES)
def test_gradients(window, stride, padding):
    x, kernel = normal(1, 2, 3, 2), normal(*window, 2, 2, seed=1)
    weight = normal(*scattered(x, kernel, stride, padding).shape, seed=2)

    def loss(x, kernel):
        return jnp.sum(weight * convolve_transposed(x, kernel, stride, padding))

    by_x, by_kernel = jax.grad(loss, (0, 1))(
        jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    )
    # It is linear in either: the derivative by one number is the value at its unit vector.
    for found, array, position in ((by_x, x, 0), (by_kernel, kernel, 1)):
        expected = np.zeros_like(array)
        for index in np.ndindex(*array.shape):
            unit = np.zeros_like(array)
            unit[index] = 1
            pair = (unit, kernel) if position == 0 else (x, unit)
            expected[index] = (weight * scattered(*pair, stride, padding)).sum()
        np.testing.assert_allclose(found, expected, atol=1e-4)
