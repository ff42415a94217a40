"""CoordConv against coordinates written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.layers.coordconv import CoordConv, add_coordinates, coordinates
from imvad_jax.ops.resample import resize_bilinear


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


def made(shapes, features, **options):
    maps = [jax.random.normal(jax.random.key(n), shape) for n, shape in enumerate(shapes)]
    layer = CoordConv([shape[-1] for shape in shapes], features, **options)
    return layer, layer.init(jax.random.key(9), maps), maps


def test_the_kernel_is_a_matrix_on_the_channels_of_all_maps_and_coordinates():
    layer, variables, maps = made(
        [(2, 6, 4, 5), (2, 3, 2, 3), (2, 2, 2, 1)], 7, precision="highest"
    )
    kernel = np.asarray(variables["params"]["conv"]["kernel"], np.float64)[0, 0]
    bias = np.asarray(variables["params"]["conv"]["bias"], np.float64)
    assert kernel.shape == (5 + 3 + 1 + 2, 7) and bias.shape == (7,)
    whole = [maps[0], *(resize_bilinear(part, (6, 4)) for part in maps[1:])]
    found = layer.apply(variables, maps)
    for row in range(6):
        for column in range(4):
            place = [2 * row / 5 - 1, 2 * column / 3 - 1]
            values = [np.asarray(part[:, row, column]) for part in whole]
            stacked = np.concatenate([*values, [place, place]], -1)
            np.testing.assert_allclose(found[:, row, column], stacked @ kernel + bias, atol=1e-5)


def test_factors_give_the_products_of_outputs_with_vectors():
    layer, variables, maps = made([(1, 4, 4, 5), (1, 2, 2, 3)], 7, precision="highest")
    vectors = jax.random.normal(jax.random.key(5), (11, 7))
    factors, constant = layer.apply(variables, vectors, method="factors")
    found = constant + sum(
        resize_bilinear(part, (4, 4)) @ factor.T
        for part, factor in zip(layer.inputs(maps), factors, strict=True)
    )
    np.testing.assert_allclose(found, layer.apply(variables, maps) @ vectors.T, atol=1e-5)


def test_start_is_uniform_within_the_inverse_root_of_the_inputs():
    _, variables, _ = made([(1, 8, 8, 50), (1, 4, 4, 20)], 500)
    params, bound = variables["params"]["conv"], 72**-0.5
    for leaf in (params["kernel"], params["bias"]):
        assert bound * 0.97 < float(jnp.abs(leaf).max()) <= bound
        assert abs(float(leaf.std()) - bound / 3**0.5) < 0.05 * bound
