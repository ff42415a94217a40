"""Stored parameters are taken as they are; missing and misshapen ones are Flax's affair."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors
from flax import linen as nn

from imvad_jax.layers.parameters import parameter


class Scaled(nn.Module):
    """Multiplies by a parameter that `draw` gives."""

    draw: Callable = jax.random.normal

    @nn.compact
    def __call__(self, x):
        return x * parameter(self, "scale", self.draw, x.shape[-1:])


class Plain(nn.Module):
    """The same with Flax's own function."""

    @nn.compact
    def __call__(self, x):
        return x * self.param("scale", jax.random.normal, x.shape[-1:], jnp.float32)


def test_a_new_parameter_is_flax_s():
    ours, theirs = (m.init(jax.random.key(3), jnp.ones((2, 5))) for m in (Scaled(), Plain()))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_a_stored_one_is_not_drawn_and_another_shape_is_an_error():
    called = []

    def draw(*arguments):
        called.append(arguments)
        return jax.random.normal(*arguments)

    stored = {"params": {"scale": np.arange(5, dtype=np.float32)}}
    found = Scaled(draw).apply(stored, jnp.ones((2, 5)))
    np.testing.assert_array_equal(found[1], stored["params"]["scale"])
    assert not called
    with pytest.raises(errors.ScopeParamShapeError, match="scale"):
        Scaled(draw).apply(stored, jnp.ones((2, 4)))
