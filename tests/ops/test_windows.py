"""Windows against plain slices, and the map of what they were given."""

import jax
import numpy as np
import pytest

from imvad_jax.ops.windows import map_windows, spread_matrix, spread_windows, window_starts


def test_windows_are_slices():
    images = np.random.default_rng(0).uniform(size=(2, 11, 14, 3)).astype(np.float32)
    found = jax.jit(lambda x: map_windows(lambda w: w, x, 4, 3))(images)
    tops, lefts = range(0, 8, 3), range(0, 11, 3)
    assert found.shape == (2, len(tops), len(lefts), 4, 4, 3)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            np.testing.assert_array_equal(found[:, i, j], images[:, top : top + 4, left : left + 4])


def test_starts_lie_inside():
    assert window_starts(64, 64, 4).tolist() == [0]
    assert window_starts(256, 64, 4)[-1] == 192 and window_starts(10, 4, 4).tolist() == [0, 4]


@pytest.mark.parametrize("sigma", [0.5, 8.0])
def test_a_constant_stays_constant_and_a_peak_stays_in_place(sigma):
    weights = spread_matrix(100, 32, 4, sigma)
    np.testing.assert_allclose(weights.sum(1), 1)
    peak = np.zeros((1, 18, 18), np.float32)
    peak[0, 5, 10] = 1
    found = np.asarray(spread_windows(peak, (100, 100), 32, 4, sigma))[0]
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert abs(row - (5 * 4 + 15.5)) <= 2 and abs(column - (10 * 4 + 15.5)) <= 2


def test_weights_are_gaussians_around_the_centres():
    centers = np.arange(0, 9, 2) + 1.5
    raw = np.exp(-((np.arange(12)[:, None] - centers) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(spread_matrix(12, 4, 2, 1.5), raw / raw.sum(1, keepdims=True))
