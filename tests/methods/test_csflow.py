"""CS-Flow against its formulas in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.layers import cross_scale
from imvad_jax.methods.csflow import CSFlow, CSFlowConfig
from imvad_jax.presets.csflow import presets
from imvad_jax.training.features import features_bytes
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images

SIDES = (8, 4, 2)
CHANNELS = 128


@pytest.fixture(scope="module")
def untrained():
    """A detector of the smoke preset that also gives maps, and its variables before the fit."""
    detector = CSFlow(dataclasses.replace(presets()["smoke"], with_map=True))
    spec = backbones.get("resnet18")
    backbone = load_weights(spec, "random", detector.outputs).variables
    return detector, init_variables(detector, backbone, seed=0)


@pytest.fixture(scope="module")
def moved(untrained):
    """The same, its parameters moved away from their start."""
    detector, variables = untrained
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: np.asarray(p) + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        variables["params"],
    )
    return detector, variables | {"params": params}


def batch(count=2, seed=1, size=64):
    return images(count, seed, size).images.astype(np.float32) / 255


@pytest.fixture(scope="module")
def everything(untrained):
    """(variables, images) -> maps, (loss, metrics), prediction; compiled once."""
    detector, _ = untrained

    def run(variables, array):
        maps = detector.apply(variables, array, method="frozen_features")
        return (
            maps,
            detector.apply(variables, maps, method="loss"),
            detector.apply(variables, array),
        )

    compiled = jax.jit(run)
    return lambda variables, array: jax.device_get(compiled(variables, array))


def half_mean_square(maps):
    """Half the mean square over all maps, by image, in float64."""
    count = sum(m[0].size for m in maps)
    return 0.5 * sum((np.asarray(m, np.float64) ** 2).sum((1, 2, 3)) for m in maps) / count


def bilinear(values, size):
    """`[h, w]` at `size` x `size`: half-pixel centres, clamped at the edge."""
    for axis in (0, 1):
        n = values.shape[axis]
        at = (np.arange(size) + 0.5) * n / size - 0.5
        rows = [np.interp(at, np.arange(n), row) for row in np.moveaxis(values, axis, -1)]
        values = np.moveaxis(np.stack(rows), -1, axis)
    return values


def test_three_maps_are_features_of_every_first_second_and_fourth_pixel(untrained, everything):
    _, variables = untrained
    array = batch()
    maps, _, _ = everything(variables, array)
    net = backbones.get("resnet18").build()
    apply = jax.jit(lambda v, x: net.apply(v, x, outputs=("layer2",))["layer2"])
    for found, step, side in zip(maps, (1, 2, 4), SIDES, strict=True):
        expected = apply(variables["backbone"], array[:, ::step, ::step])
        assert found.shape == (2, side, side, CHANNELS)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_untrained_it_is_the_energy_of_the_features(untrained, everything):
    _, variables = untrained
    maps, (loss, metrics), prediction = everything(variables, batch())
    expected = half_mean_square(maps)
    assert metrics["log_det"] == 0 and expected.std() > 0
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["energy"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-5)
    squares = (maps[0].astype(np.float64) ** 2).mean(-1)
    np.testing.assert_allclose(
        prediction.anomaly_map, [bilinear(one, 64) for one in squares], rtol=1e-4
    )


def test_loss_score_and_map_are_those_of_the_latents(moved, everything):
    detector, variables = moved
    config = detector.config
    maps, (loss, metrics), prediction = everything(variables, batch())

    def flow(variables, z):  # the blocks one after the other; test_cross_scale tests one
        total = 0.0
        for k, size in enumerate(config.kernel_sizes):
            block = cross_scale.CrossScaleCoupling(config.hidden, size, config.clamp)
            order = [variables["memory"][f"permutations_{i}"][k] for i in range(3)]
            z, log_det = block.apply({"params": variables["params"][f"blocks_{k}"]}, z, order)
            total += log_det
        return z, total

    z, log_det = jax.device_get(jax.jit(flow)(variables, maps))
    energy = half_mean_square(z)
    log_det = log_det.astype(np.float64) / (CHANNELS * sum(side**2 for side in SIDES))
    assert abs(log_det).min() > 0.01
    assert abs(energy - half_mean_square(maps)).min() > 0.01
    np.testing.assert_allclose(loss, (energy - log_det).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["energy"], energy.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["log_det"], log_det.mean(), rtol=1e-4)
    np.testing.assert_allclose(prediction.score, energy, rtol=1e-4)
    squares = (z[0].astype(np.float64) ** 2).mean(-1)
    np.testing.assert_allclose(
        prediction.anomaly_map, [bilinear(one, 64) for one in squares], rtol=1e-3
    )


def test_it_gives_no_map_unless_asked(untrained):
    detector, variables = untrained
    plain = CSFlow(dataclasses.replace(detector.config, with_map=False))
    prediction = jax.eval_shape(plain.apply, variables, batch())
    assert prediction.anomaly_map is None and prediction.score.shape == (2,)


def test_permutations_are_drawn_by_block_and_scale():
    detector = CSFlow(CSFlowConfig())
    memory = jax.jit(lambda key: detector.apply({}, key, method="init_memory"))(jax.random.key(0))
    assert set(memory) == {f"permutations_{i}" for i in range(3)}
    rows = np.concatenate([np.asarray(memory[name]) for name in memory])
    assert rows.shape == (12, 304) and len({tuple(row) for row in rows}) == 12
    np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(304), (12, 1)))


def shapes_of(config):
    """The shapes of the features of one image and of the parameters, and the estimate's bytes."""
    detector = CSFlow(config)
    variables = {
        "backbone": backbones.get(config.backbone).variables_template(detector.outputs),
        "memory": jax.eval_shape(
            lambda key: detector.apply({}, key, method="init_memory"), jax.random.key(0)
        ),
    }
    image = jax.ShapeDtypeStruct((1, config.input_size, config.input_size, 3), jnp.float32)
    maps = jax.eval_shape(
        lambda variables, image: detector.apply(variables, image, method="frozen_features"),
        variables,
        image,
    )
    made = jax.eval_shape(
        lambda variables, maps, key: detector.apply(
            variables, maps, method="loss", mutable=["params"], rngs={"params": key}
        )[1],
        variables,
        maps,
        jax.random.key(0),
    )["params"]
    estimate = detector.memory_estimate(200, 1)["parameters, gradients, optimizer"]
    return [m.shape[1:] for m in maps], made, estimate


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_official_network_has_the_sizes_of_the_official_code():
    maps, params, estimate = shapes_of(CSFlowConfig())
    assert maps == [(24, 24, 304), (12, 12, 304), (6, 6, 304)]
    for k, millions in enumerate((23.8, 23.8, 23.8, 66.2)):
        for subnet in params[f"blocks_{k}"].values():
            assert round(count(subnet) / 1e6, 1) == millions
    assert len(params) == 4 and round(count(params) / 1e6, 1) == 275.2
    assert estimate == 4 * 4 * count(params)


def test_sizes_that_do_not_halve_exactly_are_rounded_up():
    small = dataclasses.replace(
        presets()["demo"], layer="stage5", image_size=96, hidden=2, flow_blocks=1
    )
    maps, params, estimate = shapes_of(small)
    assert [m[:2] for m in maps] == [(3, 3), (2, 2), (1, 1)]
    assert estimate == 4 * 4 * count(params)


def test_features_that_do_not_halve_are_refused():
    config = dataclasses.replace(presets()["smoke"], backbone="vgg16", image_size=104)
    with pytest.raises(UserError, match=r"image_size=104.*\(13, 13\).*\(6, 6\).*multiple of 32"):
        shapes_of(config)


def test_official_configuration():
    config = presets()["official"]
    assert (config.backbone, config.layer, config.input_size) == (
        "efficientnet_b5_static",
        "stage5",
        768,
    )
    assert config.kernel_sizes == (3, 3, 3, 5)
    assert (config.hidden, config.clamp, config.epochs, config.batch_size) == (1024, 3, 240, 16)
    assert (config.learning_rate, config.epsilon, config.weight_decay) == (2e-4, 1e-4, 1e-5)
    assert (config.gradient_clip, config.cache_features, config.with_map) == (1.0, True, False)


@pytest.mark.parametrize("field, value", [("flow_blocks", 0), ("hidden", 0), ("clamp", 0.0)])
def test_impossible_settings(field, value):
    with pytest.raises(UserError, match=f"{field}={value}"):
        CSFlowConfig(**{field: value})


def test_training_lowers_the_loss_and_touches_parameters_only(untrained, everything):
    detector, variables = untrained
    losses = []
    trained = fit(
        detector,
        variables,
        images(8),
        Parallel(jax.local_devices()[:1]),
        on_epoch=lambda epoch, metrics: losses.append(metrics["loss"]),
    )
    assert len(losses) == detector.config.epochs and losses[-1] < 0.5 * losses[0]
    for name in ("backbone", "memory"):
        jax.tree.map(np.testing.assert_array_equal, variables[name], trained[name])
    _, (loss, _), prediction = everything(trained, batch(8, seed=0)[:2])
    assert loss < losses[0] and np.isfinite(prediction.anomaly_map).all()


def test_half_precision_scores_are_near_and_float32(moved, everything):
    detector, variables = moved
    half = CSFlow(dataclasses.replace(detector.config, dtype="bfloat16"))
    found = jax.jit(half.apply)(variables, batch())
    _, _, exact = everything(variables, batch())
    assert found.anomaly_map.dtype == found.score.dtype == np.float32
    np.testing.assert_allclose(found.score, exact.score, rtol=0.05)


def test_before_the_fit_the_features_are_traced_once(untrained, monkeypatch):
    detector = CSFlow(dataclasses.replace(presets()["smoke"], image_size=128))
    traced, features = [], CSFlow.frozen_features

    def counted(self, images):
        traced.append(images.shape)
        return features(self, images)

    monkeypatch.setattr(CSFlow, "frozen_features", counted)
    size = features_bytes(detector, 3)
    start = init_variables(detector, untrained[1]["backbone"], seed=0)
    assert features_bytes(detector, 6) == 2 * size
    assert size == 3 * 4 * CHANNELS * (16**2 + 8**2 + 4**2)
    assert traced == [(1, 128, 128, 3)]
    # The flow's parameters do not depend on the sizes of its maps.
    jax.tree.map(np.testing.assert_array_equal, start["params"], untrained[1]["params"])
