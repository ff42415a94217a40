"""CoordConv against coordinates written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.layers.coordconv import CoordConv, add_coordinates, coordinates


def test_channels_are_row_then_column_from_minus_one_to_one():
    expected = [
        [[-1, -1], [-1, -0.5], [-1, 0], [-1, 0.5], [-1, 1]],
        [[0, -1], [0, -0.5], [0, 0], [0, 0.5], [0, 1]],
        [[1, -1], [1, -0.5], [1, 0], [1, 0.5], [1, 1]],
    ]
    np.testing.assert_allclose(coordinates(3, 5), expected, atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (1, 1)])
def test_a_single_row_or_column_lies_at_minus_one(shape):
    grid = np.asarray(coordinates(*shape))
    assert np.isfinite(grid).all()
    for axis in (0, 1):
        if shape[axis] == 1:
            assert (grid[..., axis] == -1).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_coordinates_come_last_and_are_the_same_for_all_images(dtype):
    features = jax.random.normal(jax.random.key(0), (2, 3, 5, 4), dtype)
    found = add_coordinates(features)
    assert found.shape == (2, 3, 5, 6) and found.dtype == dtype
    np.testing.assert_array_equal(found[..., :4], features)
    np.testing.assert_array_equal(found[0, ..., 4:], found[1, ..., 4:])


def test_a_1x1_kernel_is_a_matrix_on_channels_and_coordinates():
    layer = CoordConv(7, precision="highest")
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    variables = layer.init(jax.random.key(1), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"], np.float64)[0, 0]
    bias = np.asarray(variables["params"]["conv"]["bias"], np.float64)
    assert kernel.shape == (7, 7) and bias.shape == (7,)
    found = layer.apply(variables, x)
    for row in range(3):
        for column in range(4):
            place = [2 * row / 2 - 1, 2 * column / 3 - 1]
            stacked = np.concatenate([np.asarray(x[:, row, column]), [place, place]], -1)
            np.testing.assert_allclose(found[:, row, column], stacked @ kernel + bias, atol=1e-5)


def test_start_is_uniform_within_the_inverse_root_of_the_fan_in():
    layer = CoordConv(500, (3, 3))
    params = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 6)))["params"]["conv"]
    bound = (8 * 3 * 3) ** -0.5
    for leaf in (params["kernel"], params["bias"]):
        assert bound * 0.97 < float(jnp.abs(leaf).max()) <= bound
        assert abs(float(leaf.std()) - bound / 3**0.5) < 0.05 * bound
