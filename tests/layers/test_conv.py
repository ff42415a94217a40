"""The project's convolution against flax's: the same parameters, the same results, kernels kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imvad_jax.layers.conv import OUTPUTS, TRANSFORMED, Conv
from imvad_jax.ops import convolution

# Fields of both modules. The input is [2, 9, 8, 6].
FIELDS = [
    {"features": 4, "kernel_size": (3, 3)},
    {"features": 4, "kernel_size": (3, 3), "strides": (2, 2), "padding": 1, "use_bias": False},
    {"features": 5, "kernel_size": (1, 1), "strides": (2, 1)},
    {"features": 3, "kernel_size": (4, 2), "padding": ((0, 1), (2, 0))},
    {"features": 3, "kernel_size": (7, 7), "strides": (2, 2), "padding": "SAME"},
    {"features": 6, "kernel_size": (5, 5), "strides": (2, 2), "feature_group_count": 6},
    {"features": 4, "kernel_size": (3, 3), "dtype": jnp.bfloat16},
]
LARGE = (2, 64, 64, 32)  # goes by Winograd with as many features


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("fields", FIELDS)
def test_parameters_and_results_are_those_of_flax(fields):
    ours = Conv(**fields, bias_init=nn.initializers.normal())
    theirs = nn.Conv(**fields, bias_init=nn.initializers.normal())
    x = normal(2, 9, 8, 6)
    variables, expected = (module.init(jax.random.key(3), x) for module in (ours, theirs))
    assert jax.tree.structure(variables) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, variables, expected)
    found, expected = (jax.jit(module.apply)(variables, x) for module in (ours, theirs))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    atol = 0.05 if found.dtype == jnp.bfloat16 else 1e-5
    np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=atol)


@pytest.fixture(scope="module")
def large():
    """A module whose kernel is worth transforming, its variables with the kernel ready, a map."""
    module, x = Conv(32, (3, 3)), normal(*LARGE)
    variables = module.init(jax.random.key(0), x)
    assert list(variables) == ["params"]  # none of a module's own making
    _, changed = jax.jit(lambda v: module.apply(v, x, mutable=[TRANSFORMED]))(variables)
    return module, variables | changed, x


def test_a_kernel_made_ready_gives_the_same(large):
    module, variables, x = large
    assert variables[TRANSFORMED]["kernel"].shape == (36, 32, 32)
    apply = jax.jit(module.apply)
    expected = apply({"params": variables["params"]}, x)
    np.testing.assert_allclose(apply(variables, x), expected, atol=1e-6)


def test_a_kernel_made_ready_is_what_is_used(large):
    module, variables, x = large
    apply = jax.jit(module.apply)
    doubled = variables | {TRANSFORMED: jax.tree.map(lambda leaf: 2 * leaf, variables[TRANSFORMED])}
    np.testing.assert_allclose(apply(doubled, x), 2 * apply(variables, x), atol=1e-5)
    with convolution.forms("xla"):  # not by a rule that is not in use
        found = jax.jit(lambda v: module.apply(v, x))(doubled)
    np.testing.assert_allclose(found, apply(variables, x), atol=1e-4)


@pytest.mark.parametrize(
    "side, channels, shared",
    [(16, 256, True), (16, 128, False), (8, 256, True), (32, 256, False), (32, 1024, True)],
)
def test_kernels_whose_outputs_devices_had_better_share(side, channels, shared):
    module, x = Conv(channels, (3, 3)), jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    _, changed = jax.eval_shape(
        lambda v, x: module.apply(v, x, mutable=[TRANSFORMED]), variables, x
    )
    assert set(changed[TRANSFORMED]) == {"kernel"} | ({OUTPUTS} if shared else set())


@pytest.mark.parametrize(
    "shape, fields",
    [
        ((2, 16, 16, 32), {}),
        (LARGE, {"strides": (2, 2)}),
        (LARGE, {"dtype": jnp.bfloat16}),
        (LARGE, {"feature_group_count": 32}),
    ],
)
def test_other_kernels_are_not_made_ready(shape, fields):
    module, x = Conv(32, (3, 3), **fields), jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def transformed():
        _, changed = jax.eval_shape(
            lambda v, x: module.apply(v, x, mutable=[TRANSFORMED]), variables, x
        )
        return changed

    assert not transformed()
    module, x = Conv(32, (3, 3)), jax.ShapeDtypeStruct(LARGE, jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    assert transformed()
    with convolution.forms("xla"):
        assert not transformed()
