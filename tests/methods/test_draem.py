"""DRAEM against its formulas in numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.errors import UserError
from imvad_jax.methods import draem
from imvad_jax.methods.draem import DRAEM, DRAEMConfig
from imvad_jax.ops import anomaly
from imvad_jax.ops.ssim import ssim_map
from imvad_jax.presets.draem import presets
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images

NOISE = {"noise": jax.random.key(5)}


@pytest.fixture(scope="module")
def small():
    """A detector of the smoke preset, its parameters moved away from their start."""
    config = dataclasses.replace(presets()["smoke"], image_size=32)
    detector = DRAEM(config)
    variables = init_variables(detector, None, seed=0)
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda p: np.asarray(p) + 0.1 * rng.standard_normal(p.shape).astype(np.float32),
        variables["params"],
    )
    return detector, variables | {"params": moved}


def batch(count=4, seed=1):
    return images(count, seed, 32).images.astype(np.float32) / 255


@pytest.fixture(scope="module")
def loss_of(small):
    detector, _ = small

    def loss(variables, batch):
        found, _ = detector.apply(
            variables, batch, method="loss", mutable=["batch_stats"], rngs=NOISE
        )
        return found

    return jax.jit(loss)


def focal(probability, target):
    """The authors' focal loss of probabilities `[..., 2]`, in float64."""
    onehot = np.clip(np.stack([1 - target, target], -1), 1e-5, 1 - 1e-5)
    right = (onehot * probability).sum(-1) + 1e-5
    return (-((1 - right) ** 2) * np.log(right)).mean()


def test_focal_loss():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (3, 5, 5, 2))
    target = rng.integers(0, 2, (3, 5, 5))
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = draem.focal_loss(jnp.asarray(logits, jnp.float32), target > 0)
    np.testing.assert_allclose(found, focal(probability, target), rtol=1e-5)
    sure = jnp.asarray([[50.0, -50.0]])  # in the right, and utterly wrong
    np.testing.assert_allclose(draem.focal_loss(sure, jnp.asarray([False])), 0, atol=1e-9)
    expected = -((1 - 2e-5) ** 2) * np.log(2e-5)
    np.testing.assert_allclose(draem.focal_loss(sure, jnp.asarray([True])), expected, rtol=1e-4)


def test_loss_compares_the_repaired_image_with_the_clean_one_and_the_map_with_the_mask(
    small, loss_of
):
    detector, variables = small
    keys = detector.apply(variables, 4, method="image_keys", rngs=NOISE)
    drawn = jax.jit(anomaly.synthesize)(keys, batch())
    assert np.asarray(drawn.mask).any() and not np.asarray(drawn.mask).any((1, 2)).all()
    networks = jax.jit(
        lambda v, x: detector.apply(v, x, True, method="networks", mutable=["batch_stats"])[0]
    )
    repaired, logits = (np.asarray(x, np.float64) for x in networks(variables, drawn.augmented))
    original = np.asarray(drawn.original)
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = {
        "mse": ((repaired - original) ** 2).mean(),
        "ssim": 1 - ssim_map(jnp.asarray(repaired, jnp.float32), jnp.asarray(original)).mean(),
        "focal": focal(probability, np.asarray(drawn.mask).astype(int)),
    }
    loss, metrics = loss_of(variables, batch())
    assert metrics.keys() == expected.keys() and min(expected.values()) > 1e-3
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-3)
    np.testing.assert_allclose(loss, sum(expected.values()), rtol=1e-3)


def test_the_segmenter_sees_the_repaired_image_first(small):
    detector, variables = small
    params, stats = variables["params"], variables["batch_stats"]
    state = {"params": params["reconstructive"], "batch_stats": stats["reconstructive"]}
    bound = detector.bind(variables)
    repaired = bound.reconstructive.clone(parent=None).apply(state, batch(), train=False)
    state = {"params": params["discriminative"], "batch_stats": stats["discriminative"]}
    network = bound.discriminative.clone(parent=None)
    logits = network.apply(state, jnp.concatenate([repaired, batch()], -1), train=False)
    prediction = detector.apply(variables, batch())
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert probability.std() > 0.01
    np.testing.assert_allclose(prediction.anomaly_map, probability[..., 1], atol=1e-4)


def test_score_is_the_largest_mean_over_the_window_zeros_around(small):
    detector, variables = small
    prediction = jax.jit(detector.apply)(variables, batch())
    for one, score in zip(np.asarray(prediction.anomaly_map, np.float64), prediction.score):
        means = ndimage.uniform_filter(one, detector.config.score_window, mode="constant")
        np.testing.assert_allclose(score, means.max(), rtol=1e-5)
        assert means.max() < one.max()


@pytest.mark.slow
def test_given_textures_change_the_loss_and_are_not_kept(small, loss_of):
    detector, variables = small
    pictures = {"images": np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)}
    drawn, _ = loss_of(variables, batch())
    given, _ = loss_of(variables | {"textures": pictures}, batch())
    assert abs(float(drawn - given)) > 1e-5
    fitted = fit(
        detector, variables | {"textures": pictures}, images(4, 0, 32),
        Parallel(jax.local_devices()[:1]),
    )  # fmt: skip
    assert set(fitted) == {"params", "batch_stats"}


def test_memory_estimate_counts_the_official_parameters():
    detector = DRAEM(DRAEMConfig())
    made = jax.eval_shape(
        lambda key: detector.apply(
            {}, jnp.zeros((1, 256, 256, 3)), method="init_parameters",
            mutable=["params", "batch_stats"], rngs={"params": key},
        )[1],
        jax.random.key(0),
    )["params"]  # fmt: skip
    count = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert detector.memory_estimate(200, 2)["parameters, gradients, optimizer"] == 2 * 16 * count


def test_configurations():
    official = presets()["official"]
    assert (official.input_size, official.epochs, official.batch_size) == (256, 700, 8)
    assert (official.optimizer, official.learning_rate) == ("adam", 1e-4)
    assert (official.schedule, official.decay_factor) == ("step", 0.2)
    assert official.decay_at == (0.8, 0.9)
    assert (official.weight_decay, official.score_window) == (0, 21)
    assert official.own_textures == 0 and not official.notes
    assert presets()["cpu"].notes == ("anomaly textures: 50% are the image itself, rearranged",)
    benchmark = presets()["benchmark"]
    assert (benchmark.epochs, benchmark.batch_size, benchmark.weight_decay) == (50, 16, 3e-5)
    assert official.texture_sharpness == benchmark.texture_sharpness == 2.0


@pytest.mark.parametrize(
    "field, name",
    [
        ("texture_sharpness", "sharpest"), ("brightness_shift", "shift"),
        ("matched_textures", "matched"),
    ],
)  # fmt: skip
def test_settings_of_the_anomalies_reach_where_they_are_drawn(small, monkeypatch, field, name):
    detector, variables = small
    seen, original = [], anomaly.synthesize
    monkeypatch.setattr(
        anomaly, "synthesize",
        lambda *given, **named: seen.append(named[name]) or original(*given, **named),
    )  # fmt: skip
    for value in (0.2, 1.0):
        one = DRAEM(dataclasses.replace(detector.config, **{field: value}))
        jax.eval_shape(
            lambda v, d=one: d.apply(
                v, batch(), method="loss", mutable=["batch_stats"], rngs=NOISE
            ),
            variables,
        )
    assert seen == [0.2, 1.0]


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("score_window", 20, "score_window=20"),
        ("own_textures", 1.5, "own_textures=1.5"),
        ("brightness_shift", -0.1, "brightness_shift=-0.1"),
        ("matched_textures", 1.5, "matched_textures=1.5"),
        ("texture_sharpness", -1.0, "texture_sharpness=-1.0"),
        ("reconstructive_widths", (), "reconstructive_widths"),
        ("discriminative_widths", (8, 0), "discriminative_widths"),
        ("image_size", 72, "image_size: 72 pixels are not divisible by 16"),
    ],
)
def test_impossible_settings(field, value, message):
    with pytest.raises(UserError, match=message):
        DRAEMConfig(**{field: value})


def test_bfloat16_gives_losses_and_scores_in_float32(small):
    detector, variables = small
    half = DRAEM(dataclasses.replace(detector.config, dtype="bfloat16"))
    loss, metrics = jax.eval_shape(
        lambda v: half.apply(v, batch(), method="loss", mutable=["batch_stats"], rngs=NOISE)[0],
        variables,
    )
    prediction = jax.eval_shape(half.apply, variables, batch())
    for found in (loss, *metrics.values(), *prediction):
        assert found.dtype == jnp.float32
    repaired = jax.eval_shape(lambda v: half.apply(v, batch(), False, method="networks"), variables)
    assert all(x.dtype == jnp.float32 for x in repaired)
