"""FastFlow against its formulas in numpy."""

import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.layers import coupling
from imvad_jax.methods.fastflow import FastFlow, FastFlowConfig
from imvad_jax.presets.fastflow import presets
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from tests.methods.small import apply, images

SHAPES = {"layer1": (16, 16, 64), "layer2": (8, 8, 128), "layer3": (4, 4, 256)}


@pytest.fixture(scope="module")
def small():
    """A detector of the smoke preset, its parameters moved away from their start."""
    detector = FastFlow(presets()["smoke"])
    spec = backbones.get("resnet18")
    variables = init_variables(
        detector, load_weights(spec, "random", detector.outputs).variables, seed=0
    )
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda p: np.asarray(p) + 0.05 * rng.standard_normal(p.shape).astype(np.float32),
        variables["params"],
    )
    return detector, variables | {"params": moved}


def batch(count=2, seed=1):
    return images(count, seed).images.astype(np.float32) / 255


def latents(detector, variables, array):
    """z and log-determinants: LayerNorm in float64 numpy, flows apart (tested in test_coupling)."""
    features = apply(detector, variables, array, method="features")
    found = {}
    for layer, x in features.items():
        x = np.asarray(x, np.float64)
        x = x - x.mean((1, 2, 3), keepdims=True)
        x /= np.sqrt((x**2).mean((1, 2, 3), keepdims=True) + 1e-5)
        norm = variables["params"][f"norms_{layer}"]
        x = x * norm["scale"] + norm["bias"]
        flow = coupling.Flow((3, 1))
        permutations = variables["memory"][f"permutations_{layer}"]
        params = {"params": variables["params"][f"flows_{layer}"]}
        found[layer] = apply(flow, params, x.astype(np.float32), permutations)
    return found


def test_loss_is_the_mean_negative_log_likelihood_summed_over_scales(small):
    detector, variables = small
    loss, metrics = apply(detector, variables, batch(3), method="image_loss")
    energy = log_det = 0.0
    for z, found in latents(detector, variables, batch(3)).values():
        energy += np.mean([0.5 * (np.asarray(one, np.float64) ** 2).sum() for one in z])
        log_det += np.asarray(found, np.float64).mean()
    assert loss.shape == () and abs(log_det) > 1
    np.testing.assert_allclose(metrics["energy"], energy, rtol=1e-5)
    np.testing.assert_allclose(metrics["log_det"], log_det, rtol=1e-4)
    np.testing.assert_allclose(loss, energy - log_det, rtol=1e-5)


def bilinear(values, size):
    """`[h, w]` at `size` x `size`: half-pixel centres, clamped at the edge."""
    for axis in (0, 1):
        n = values.shape[axis]
        at = (np.arange(size) + 0.5) * n / size - 0.5
        rows = [np.interp(at, np.arange(n), row) for row in np.moveaxis(values, axis, -1)]
        values = np.moveaxis(np.stack(rows), -1, axis)
    return values


def test_map_is_the_mean_of_the_upsampled_likelihoods(small):
    detector, variables = small
    prediction = apply(detector, variables, batch())
    expected = np.zeros((2, 64, 64))
    for z, _ in latents(detector, variables, batch()).values():
        likelihood = np.exp(-0.5 * (np.asarray(z, np.float64) ** 2).mean(-1))
        expected -= np.stack([bilinear(one, 64) for one in likelihood]) / 3
    assert expected.std() > 0.01
    np.testing.assert_allclose(prediction.anomaly_map, expected, atol=1e-5)
    np.testing.assert_allclose(prediction.score, expected.max((1, 2)), atol=1e-5)


def test_permutations_are_drawn_by_step_and_scale_and_used(small):
    detector, variables = small
    memory = variables["memory"]
    assert set(memory) == {f"permutations_{layer}" for layer in SHAPES}
    for layer, shape in SHAPES.items():
        rows = np.asarray(memory[f"permutations_{layer}"])
        np.testing.assert_array_equal(np.sort(rows), np.tile(np.arange(shape[-1]), (2, 1)))
        assert (rows[0] != rows[1]).any()
    other = detector.apply({}, jax.random.key(9), method="init_memory")
    first = apply(detector, variables, batch()).anomaly_map
    second = apply(detector, variables | {"memory": other}, batch()).anomaly_map
    assert np.abs(np.asarray(first - second)).max() > 1e-4


def parameter_counts(config):
    """Numbers of parameters by part, and of all."""
    detector = FastFlow(config)
    spec = backbones.get(config.backbone)
    variables = {
        "backbone": spec.variables_template(detector.outputs),
        "memory": jax.eval_shape(
            lambda key: detector.apply({}, key, method="init_memory"), jax.random.key(0)
        ),
    }
    size = config.input_size
    made = jax.eval_shape(
        lambda variables, image, key: detector.apply(
            variables, image, method="init_parameters", mutable=["params"], rngs={"params": key}
        )[1],
        variables,
        jax.ShapeDtypeStruct((1, size, size, 3), np.float32),
        jax.random.key(0),
    )["params"]
    counts = {"norms": 0, "flows": 0}
    for name, part in made.items():
        counts[name.split("_")[0]] += sum(leaf.size for leaf in jax.tree.leaves(part))
    estimate = detector.memory_estimate(200, 1)["parameters, gradients, optimizer"]
    assert estimate == 4 * 4 * sum(counts.values())
    return counts


def test_parameter_counts_are_those_of_the_common_code():
    config = FastFlowConfig(backbone="resnet18")
    alternating = parameter_counts(config)
    assert alternating["norms"] == 2 * (64 * 64 * 64 + 32 * 32 * 128 + 16 * 16 * 256)
    assert round(alternating["flows"] / 1e6, 2) == 2.59
    only = parameter_counts(dataclasses.replace(config, conv3x3_only=True))
    assert round(only["flows"] / 1e6, 2) == 4.66
    assert parameter_counts(presets()["smoke"])["flows"] > 0


def test_kernel_sizes():
    assert FastFlowConfig(flow_steps=3).kernel_sizes == (3, 1, 3)
    assert FastFlowConfig(flow_steps=3, conv3x3_only=True).kernel_sizes == (3, 3, 3)


def test_official_configuration():
    config = presets()["official"]
    assert (config.backbone, config.input_size, config.flow_steps) == ("wide_resnet50_2", 256, 8)
    assert (config.epochs, config.batch_size) == (500, 32)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 1e-3, 1e-5)


@pytest.mark.parametrize("field, value", [("flow_steps", 0), ("clamp", 0.0)])
def test_impossible_settings(field, value):
    with pytest.raises(UserError, match=f"{field}={value}"):
        FastFlowConfig(**{field: value})


def test_training_lowers_the_loss_and_touches_parameters_only(small):
    detector, variables = small
    losses = []
    trained = fit(
        detector,
        variables,
        images(8),
        Parallel(jax.local_devices()[:1]),
        on_epoch=lambda epoch, metrics: losses.append(metrics["loss"]),
    )
    assert len(losses) == 4 and losses == sorted(losses)[::-1]
    for name in ("backbone", "memory"):
        jax.tree.map(np.testing.assert_array_equal, variables[name], trained[name])
    prediction = apply(detector, trained, batch())
    assert np.isfinite(prediction.anomaly_map).all()


def test_half_precision_scores_are_near_and_float32(small):
    detector, variables = small
    half = FastFlow(dataclasses.replace(detector.config, dtype="bfloat16"))
    exact, found = apply(detector, variables, batch()), apply(half, variables, batch())
    assert found.anomaly_map.dtype == found.score.dtype == np.float32
    np.testing.assert_allclose(found.anomaly_map, exact.anomaly_map, atol=0.05)
