"""Nearest neighbours against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from imvad_jax.ops import neighbors, resample


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(50, 16)), rng.normal(size=(333, 16))
    return queries.astype(np.float32), bank.astype(np.float32)


@pytest.mark.parametrize("block", [7, 100, 333, 4096])
def test_nearest_is_exact_for_any_block(points, block):
    queries, bank = points
    expected, rows = NearestNeighbors(n_neighbors=4).fit(bank).kneighbors(queries)
    distances, found = neighbors.nearest(queries, jnp.asarray(bank), 4, block=block)
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(distances, expected**2, rtol=1e-4)
    single = neighbors.nearest_squared_distance(queries, jnp.asarray(bank), block=block)
    np.testing.assert_allclose(single, expected[:, 0] ** 2, rtol=1e-4)


def test_padding_rows_are_never_found(points):
    queries, bank = points
    padded = np.concatenate([bank, queries])  # padding that would be at distance 0
    valid = np.arange(len(padded)) < len(bank)
    _, found = neighbors.nearest(queries, jnp.asarray(padded), 3, jnp.asarray(valid), block=64)
    assert int(found.max()) < len(bank)
    np.testing.assert_allclose(
        neighbors.nearest_squared_distance(queries, jnp.asarray(padded), jnp.asarray(valid)),
        neighbors.nearest_squared_distance(queries, jnp.asarray(bank)),
        rtol=1e-5,
    )


def test_fewer_rows_than_neighbours(points):
    queries, bank = points
    valid = jnp.arange(len(bank)) < 2
    distances, found = neighbors.nearest(queries, jnp.asarray(bank), 5, valid)
    assert np.isinf(distances[:, 2:]).all() and (found[:, 2:] == -1).all()
    assert np.isfinite(distances[:, :2]).all()


@pytest.mark.parametrize("block", [7, 64, 333, 1000])
@pytest.mark.parametrize("count", [1, 63, 64, 330, 333])
def test_nearest_of_maps_is_exact_for_any_block_and_count(points, block, count):
    _, bank = points
    rng = np.random.default_rng(1)
    shapes = (6, 4, 7), (3, 4, 5), (2, 2, 4)
    maps = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    whole = [resample.resize_bilinear(m[None], (6, 4))[0].reshape(24, -1) for m in maps]
    expected, _ = NearestNeighbors(n_neighbors=1).fit(bank[:count]).kneighbors(np.hstack(whole))
    search = jax.jit(neighbors.nearest_of_maps, static_argnames="block")
    found = search(maps, bank, (bank**2).sum(-1), np.int32(count), block=block)
    np.testing.assert_allclose(found, expected[:, 0] ** 2, rtol=1e-4)


def test_no_row_is_infinitely_far(points):
    _, bank = points
    maps = [np.ones((2, 2, 16), np.float32)]
    found = neighbors.nearest_of_maps(maps, bank, (bank**2).sum(-1), np.int32(0))
    assert np.isinf(found).all()


@pytest.mark.parametrize("block", [7, 64, 333, 1000])
def test_nearest_rows_of_maps_are_exact_for_any_block(points, block):
    _, bank = points
    rng = np.random.default_rng(1)
    maps = [rng.normal(size=shape).astype(np.float32) for shape in ((6, 4, 7), (3, 2, 5))]
    weights = [rng.normal(size=(m.shape[-1], 16)).astype(np.float32) for m in maps]
    parts = [m @ weight for m, weight in zip(maps, weights)]
    queries = parts[0] + resample.resize_bilinear(parts[1][None], (6, 4))[0] + 0.5
    expected = NearestNeighbors(n_neighbors=5).fit(bank).kneighbors(queries.reshape(24, 16))[1]
    factors = [bank @ weight.T for weight in weights]
    norms = (bank**2).sum(-1) - 2 * (bank * 0.5).sum(-1)
    search = jax.jit(neighbors.nearest_rows_of_maps, static_argnames=("k", "block"))
    np.testing.assert_array_equal(search(maps, factors, norms, 5, block=block), expected)
