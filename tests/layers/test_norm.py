"""Batch norm against flax's and a plain computation; the layer norm of maps, and how it adds up."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import imvad_jax
from imvad_jax.layers.initializers import normal
from imvad_jax.layers.norm import MapNorm, batch_norm
from imvad_jax.ops import normalize
from imvad_jax.ops.collectives import AXIS


def batch_and_variables(shape=(8, 3, 2, 5)):
    """A batch, and a batch norm's variables away from their start."""
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, shape).astype(np.float32)
    one = {name: rng.uniform(0.5, 2, shape[-1]).astype(np.float32) for name in "abcd"}
    params = {"scale": one["a"], "bias": one["b"]}
    return x, {"params": params, "batch_stats": {"mean": one["c"], "var": one["d"]}}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_gives_what_that_of_flax_gives_from_the_same_variables(train, dtype):
    x, variables = batch_and_variables()
    other = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3, dtype=dtype)
    found, moved = batch_norm(train, dtype, epsilon=1e-3).apply(
        variables, x.astype(dtype), mutable=["batch_stats"]
    )
    expected, theirs = other.apply(variables, x.astype(dtype), mutable=["batch_stats"])
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(moved["batch_stats"]["mean"], theirs["batch_stats"]["mean"])


def test_batch_norm_starts_as_that_of_flax_does():
    x, key, start = jnp.ones((2, 5)), jax.random.key(0), normal(1, 0.1)
    ours = batch_norm(train=True, scale_init=start).init(key, x)
    theirs = nn.BatchNorm(use_running_average=False, scale_init=start).init(key, x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("shape", [(8, 3, 2, 5), (8, 5)])
def test_the_running_variance_is_that_of_n_less_one_over_all_devices(devices, shape):
    x, variables = batch_and_variables(shape)

    def step(x):
        return batch_norm(train=True).apply(variables, x, mutable=["batch_stats"])

    if devices == 1:
        y, moved = step(x)
    else:
        parts = x.reshape(devices, -1, *shape[1:])
        y, moved = jax.pmap(step, AXIS, out_axes=(0, None))(parts)
    rows = x.astype(np.float64).reshape(-1, shape[-1])
    kept, params = variables["batch_stats"], variables["params"]
    for name, batch in (("mean", rows.mean(0)), ("var", rows.var(0, ddof=1))):
        expected = 0.9 * kept[name] + 0.1 * batch
        np.testing.assert_allclose(moved["batch_stats"][name], expected, rtol=2e-6)
    expected = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)  # this divided by n
    expected = expected * params["scale"] + params["bias"]
    np.testing.assert_allclose(np.reshape(y, rows.shape), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slope", [None, 0, 0.2])
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("shape", [(8, 3, 2, 5), (8, 5)])
def test_the_gradient_is_that_of_the_definition_on_any_number_of_devices(devices, shape, slope):
    x, variables = batch_and_variables(shape)
    weight = np.random.default_rng(1).normal(size=shape)

    def plain(x, params):
        """As one computes it on one device, from the definition."""
        axes = tuple(range(x.ndim - 1))
        y = (x - x.mean(axes)) / jnp.sqrt(x.var(axes) + 1e-5)
        y = y * params["scale"] + params["bias"]
        return y if slope is None else nn.leaky_relu(y, slope)

    def ours(x, params):
        given = variables | {"params": params}
        layer = batch_norm(train=True, dtype=x.dtype, negative_slope=slope)
        return layer.apply(given, x, mutable=["batch_stats"])[0]

    def gradients(function, x, weight):
        return jax.grad(lambda *given: jnp.sum(weight * function(*given)), (0, 1))(
            x, variables["params"]
        )

    with jax.enable_x64(True):
        x = jnp.asarray(x, jnp.float64)
        expected = gradients(plain, x, weight)
        if devices == 1:
            found = gradients(ours, x, weight)
        else:
            parts = (a.reshape(devices, -1, *shape[1:]) for a in (x, weight))
            of_x, of_params = jax.pmap(lambda x, w: gradients(ours, x, w), AXIS)(*parts)
            found = of_x.reshape(shape), jax.tree.map(lambda leaf: leaf.sum(0), of_params)
    assert found[0].dtype == x.dtype and found[1]["bias"].dtype == jnp.float32
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-5, atol=1e-5),
                 found, expected)  # fmt: skip


def test_the_gradient_is_exact_where_the_mean_is_many_deviations():
    """It is made of sums that cancel: their error may be no larger than that of the variance."""
    x, variables = batch_and_variables((4, 16, 16, 5))
    weight = np.random.default_rng(1).normal(size=x.shape)

    def gradient(x):
        layer = batch_norm(train=True, dtype=x.dtype, negative_slope=0)

        def loss(x):
            y, _ = layer.apply(variables, x, mutable=["batch_stats"])
            return jnp.sum(jnp.asarray(weight, y.dtype) * y)

        return np.asarray(jax.grad(loss)(x))

    x = 3 * x + 300  # about 30 deviations
    found = gradient(jnp.asarray(x, jnp.float32))
    with jax.enable_x64(True):
        expected = gradient(jnp.asarray(x, jnp.float64))
    error = np.abs(np.asarray(found) - expected)
    assert error.max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("slope", [0, 0.2])
def test_at_zero_the_activation_has_the_gradient_of_negative_values(slope):
    """Without a scale and bias all values are 0."""
    how = normalize.How(1e-5, slope, jnp.float32)
    x, weight = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)

    def loss(bias):
        return jnp.sum(weight * normalize.normalize_batch(x, jnp.zeros(3), bias, how)[0])

    found = jax.grad(loss)(jnp.zeros(3))
    np.testing.assert_allclose(found, slope * weight.sum(0), atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_an_offset_is_as_if_it_had_been_added(train):
    x, variables = batch_and_variables()
    offset = np.linspace(-2, 2, 5, dtype=np.float32)

    def run(x, offset):
        layer = batch_norm(train, negative_slope=0.2)
        return layer.apply(variables, x, offset, mutable=["batch_stats"])

    (found, moved), (expected, wanted) = run(x, offset), run(x + offset, None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, rtol=1e-5), moved, wanted)
    gradient = jax.grad(lambda offset: jnp.sum(x * run(x, offset)[0]))(offset)
    assert np.all(gradient == 0) if train else np.all(gradient != 0)


def test_a_single_value_a_channel_has_no_variance():
    x, variables = batch_and_variables((1, 5))
    _, moved = batch_norm(train=True).apply(variables, x, mutable=["batch_stats"])
    expected = 0.9 * variables["batch_stats"]["var"]
    np.testing.assert_allclose(moved["batch_stats"]["var"], expected, rtol=1e-6)


def test_no_network_takes_the_batch_norm_of_flax():
    sources = list(Path(imvad_jax.__file__).parent.rglob("*.py"))
    assert len(sources) > 100
    assert [path.name for path in sources if "nn.BatchNorm" in path.read_text("utf-8")] == []


def test_map_norm_is_the_layer_norm_of_flax_with_its_parameters():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 8, 6, 5)).astype(np.float32)
    params = {name: rng.normal(size=x.shape[1:]).astype(np.float32) for name in ("scale", "bias")}
    axes = {"reduction_axes": (1, 2, 3), "feature_axes": (1, 2, 3)}
    flax_norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, **axes)
    key = jax.random.key(0)
    for own, other in zip(*(jax.tree.leaves(m.init(key, x)) for m in (MapNorm(), flax_norm))):
        np.testing.assert_array_equal(own, other)
    found, expected = (m.apply({"params": params}, x) for m in (MapNorm(), flax_norm))
    np.testing.assert_allclose(found, expected, atol=1e-5)

    def loss(params, x, module):
        return jnp.sum(jnp.sin(module.apply({"params": params}, x)))

    found, expected = (jax.grad(loss, (0, 1))(params, x, m) for m in (MapNorm(), flax_norm))
    for own, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(own, other, atol=1e-5)


def test_no_sum_runs_over_more_than_one_axis():
    x = np.zeros((2, 8, 6, 5), np.float32)
    jaxpr = jax.make_jaxpr(lambda x: MapNorm().init_with_output(jax.random.key(0), x)[0])(x)
    axes = [eqn.params["axes"] for eqn in jaxpr.eqns if eqn.primitive.name == "reduce_sum"]
    assert axes == 2 * [(3,), (2,), (1,)]
