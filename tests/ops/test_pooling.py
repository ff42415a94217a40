"""Maximum pooling against flax's."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from imvad_jax.ops import pooling


def test_2x2_is_flaxs_with_its_gradient():
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)

    def theirs(x):
        return nn.max_pool(x, (2, 2), (2, 2))

    np.testing.assert_array_equal(pooling.max_pool_2x2(x), theirs(x))
    found, expected = (
        jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in (pooling.max_pool_2x2, theirs)
    )
    np.testing.assert_array_equal(found, expected)


def test_of_equal_values_the_first_has_the_gradient():
    x = np.asarray([[1, 3, 2, 2], [3, 3, 2, 2]], np.float32)[None, ..., None]
    found = jax.grad(lambda x: (pooling.max_pool_2x2(x) * np.float32([[[5], [7]]])).sum())(x)
    np.testing.assert_array_equal(found[0, ..., 0], [[0, 5, 7, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("height, width", [(8, 6), (7, 6), (5, 9), (1, 2)])
def test_3x3_of_values_that_are_not_negative_is_flaxs(height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    x = np.maximum(x, 0)
    found = pooling.max_pool_3x3_of_positive(x)
    np.testing.assert_array_equal(found, nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))))
