"""Channels by their numbers, against indexing."""

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.ops.channels import take_channels


def test_channels_are_those_of_indexing_and_zero_beyond_the_last():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 7)).astype(np.float32)
    found = take_channels(jnp.asarray(x), jnp.array([5, -1, 0, 5, 7]))
    expected = np.stack([x[..., 5], 0 * x[..., 0], x[..., 0], x[..., 5], 0 * x[..., 0]], -1)
    np.testing.assert_array_equal(found, expected)


def test_nothing_is_gathered_in_either_direction():
    x = jnp.ones((2, 3, 4, 7))
    pull = jax.grad(lambda x, numbers: jnp.sum(take_channels(x, numbers) ** 2))
    text = jax.jit(pull).lower(x, jnp.array([5, 0])).as_text()
    assert "gather" not in text and "scatter" not in text
