"""CutPaste: what it trains on, what it starts from, and its Gaussian against scikit-learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from sklearn.covariance import LedoitWolf

from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.methods.cutpaste import CutPaste, CutPasteConfig
from imvad_jax.ops.windows import spread_matrix
from imvad_jax.presets.cutpaste import presets
from imvad_jax.training.fit import init_variables
from imvad_jax.training.job import Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.statistics import statistics_phase
from tests.methods.small import images

SMOKE = presets()["smoke"]


def batch(count=4, seed=1):
    return images(count, seed).images.astype(np.float32) / 255


@pytest.fixture(scope="module")
def small():
    detector = CutPaste(SMOKE)
    return detector, init_variables(detector, None, seed=0)


def ways_of(config, key=0):
    """The pictures made of one image, without the jitter that would touch all of them."""
    detector = CutPaste(dataclasses.replace(config, image_jitter=0.0))
    augment = jax.jit(lambda key, image: detector.apply({}, key, image, method="augment"))
    return np.asarray(jax.vmap(augment)(jax.random.split(jax.random.key(key), 40), batch(40)))


def changed_share(ways):
    """Share of the pixels of each copy that differ from the original."""
    return (ways[:, 1:] != batch(40)[:, None]).any(-1).mean((2, 3))


def test_three_ways_are_the_original_a_rectangle_and_a_scar():
    ways = ways_of(SMOKE)
    assert ways.shape == (40, 3, 64, 64, 3)
    np.testing.assert_array_equal(ways[:, 0], batch(40))
    cut, scar = changed_share(ways).T
    assert 0.01 < np.median(cut) < 0.16 and cut.max() < 0.16
    assert 0 < np.median(scar) < 0.01 and scar.max() < 0.013


def test_union_tosses_a_coin_between_the_two():
    ways = ways_of(dataclasses.replace(SMOKE, variant="union"))
    assert ways.shape[1] == 2
    large = changed_share(ways)[:, 0] > 0.0135
    assert 8 < large.sum() < 32


def test_rotation_turns_every_way_by_its_own_angle():
    config = dataclasses.replace(SMOKE, variant="cutpaste", image_rotation=90.0)
    ways = ways_of(config)
    black = (ways == 0).all(-1)[:, :, 0, 0]  # the corner that is turned in
    assert black.mean(0).min() > 0.8
    assert np.abs(ways[:, 0] - batch(40)).mean((1, 2, 3)).min() > 0.01
    outside = np.ones((64, 64), bool)
    outside[16:48, 16:48] = False  # ways that were turned alike would differ in the piece alone
    assert (ways[:, 0] != ways[:, 1]).any(-1)[:, outside].mean() > 0.8


def test_loss_is_the_cross_entropy_over_all_images_and_ways(small):
    detector, variables = small
    key, inputs = jax.random.key(5), batch()

    @jax.jit
    def run(key, inputs):
        (loss, metrics), changed = detector.apply(
            variables, inputs, method="loss", mutable=["batch_stats"], rngs={"noise": key}
        )
        keys = detector.apply(variables, 4, method="image_keys", rngs={"noise": key})
        ways = jax.vmap(lambda k, x: detector.apply({}, k, x, method="augment"))(keys, inputs)
        together = ways.swapaxes(0, 1).reshape(12, 64, 64, 3)
        logits, _ = detector.apply(
            variables, together, True, method="classify", mutable=["batch_stats"]
        )
        return loss, metrics, changed, logits

    loss, metrics, changed, logits = run(key, inputs)
    # Here the ways follow each other, in the loss the images do: batch statistics are the same.
    logits, labels = np.asarray(logits, np.float64), np.repeat([0, 1, 2], 4)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(12), labels]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["accuracy"], (logits.argmax(1) == labels).mean(), rtol=1e-5)
    start = variables["batch_stats"]["encoder"]["bn1"]["mean"]
    assert not np.allclose(changed["batch_stats"]["encoder"]["bn1"]["mean"], start)


def test_from_scratch_no_weights_are_asked_for_and_statistics_start_at_0_and_1(small):
    detector, variables = small
    assert detector.outputs == () and detector.backbone_bytes() == 0
    assert set(variables) == {"params", "batch_stats"}
    for leaf in jax.tree.leaves(variables["batch_stats"]):
        assert set(np.unique(leaf)) <= {0.0, 1.0}


def test_pretrained_weights_are_where_training_starts_and_stored_once():
    detector = CutPaste(dataclasses.replace(SMOKE, pretrained=True))
    assert detector.outputs == ("layer1",)
    spec = backbones.get("resnet18")
    weights = load_weights(spec, "random", detector.outputs, seed=3).variables
    variables = init_variables(detector, weights, seed=0)
    assert set(variables) == {"params", "batch_stats"}
    for name in variables:
        jax.tree.map(np.testing.assert_array_equal, variables[name]["encoder"], weights[name])
    found = detector.apply(variables, batch(), method="embed")
    features = spec.build().apply(weights, batch(), outputs=("layer1",))["layer1"]
    np.testing.assert_allclose(found, features.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_score_is_the_mahalanobis_distance_of_scikit_learns_shrunk_gaussian(small, normalize):
    detector = CutPaste(dataclasses.replace(SMOKE, normalize=normalize))
    job = Job(images(20), Parallel(jax.local_devices()[:2]))
    variables = statistics_phase(detector, small[1], job)
    embed = jax.jit(lambda x: detector.apply(variables, x, method="embed"))

    def embeddings(array):
        found = np.asarray(embed(array), np.float64)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize else found

    model = LedoitWolf().fit(embeddings(batch(20, 0)))
    expected = np.sqrt(model.mahalanobis(embeddings(batch(5))))
    prediction = detector.apply(variables, batch(5))
    assert prediction.anomaly_map is None
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-3)


@pytest.fixture(scope="module")
def patched():
    """A detector of patches of 32 pixels, 8 apart, fitted on eight images without training."""
    detector = CutPaste(dataclasses.replace(SMOKE, patch_size=32, patch_stride=8))
    job = Job(images(8), Parallel(jax.local_devices()[:1]))
    return detector, statistics_phase(detector, init_variables(detector, None, seed=0), job)


def test_patches_are_trained_on_where_they_lie_in_the_image():
    config = dataclasses.replace(SMOKE, patch_size=32, image_jitter=0.0)
    detector = CutPaste(config)
    augment = jax.vmap(lambda key, image: detector.apply({}, key, image, method="augment"))
    ways = jax.jit(augment)(jax.random.split(jax.random.key(0), 4), batch())
    assert ways.shape == (4, 3, 32, 32, 3)
    for way, image in zip(np.asarray(ways[:, 0]), batch()):
        whole = np.lib.stride_tricks.sliding_window_view(image, (32, 32, 3))[:, :, 0]
        assert (whole == way).all((2, 3, 4)).any()


def test_the_map_is_the_distance_of_each_patch_spread(patched):
    detector, variables = patched
    found = detector.apply(variables, batch())
    assert found.anomaly_map.shape == (4, 64, 64)
    np.testing.assert_allclose(found.score, found.anomaly_map.max((1, 2)), rtol=1e-6)
    embed = jax.jit(lambda x: detector.apply(variables, x, method="embed"))
    memory = variables["memory"]
    # Its pixels are averages of distances: at the centre of a patch mostly of its own.
    distances = np.zeros((4, 5, 5))
    for i, j in np.ndindex(5, 5):
        patch = batch()[:, 8 * i : 8 * i + 32, 8 * j : 8 * j + 32]
        white = (np.asarray(embed(patch)) - memory["mean"]) @ np.asarray(memory["whitening"][0])
        distances[:, i, j] = np.linalg.norm(white, axis=1)
    weights = spread_matrix(64, 32, 8, 8.0)
    expected = np.einsum("Hh,bhw,Ww->bHW", weights, distances, weights)
    np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-3)


def test_the_gaussian_of_patches_is_that_of_all_on_its_grid(patched):
    detector, variables = patched
    assert detector.config.fit_stride == 8 and detector.fitted_patches == 25
    embed = jax.jit(lambda x: detector.apply(variables, x, method="embed"))
    inputs = batch(8, 0)
    rows = [
        np.asarray(embed(inputs[:, i : i + 32, j : j + 32]), np.float64)
        for i in range(0, 33, 8)
        for j in range(0, 33, 8)
    ]
    mean = np.concatenate(rows).mean(0)
    np.testing.assert_allclose(variables["memory"]["mean"][0], mean, rtol=1e-4, atol=1e-6)


def test_settings_of_the_paper():
    config = presets()["official"]
    assert (config.backbone, config.input_size, config.variant) == ("resnet18", 256, "3way")
    assert config.epochs * config.steps_per_epoch == 65536 and config.batch_size == 32
    assert (config.optimizer, config.learning_rate, config.schedule) == ("sgd", 0.03, "cosine")
    assert (config.momentum, config.weight_decay, config.pretrained) == (0.9, 3e-5, False)
    assert (config.area_min, config.area_max, config.aspect) == (0.02, 0.15, 0.3)
    assert (config.scar_width_min, config.scar_width_max) == (2, 16)
    assert (config.scar_length_min, config.scar_length_max) == (10, 25)
    assert (config.scar_rotation, config.piece_jitter, config.image_jitter) == (45, 0.1, 0.1)
    assert CutPaste(config).embedding_dim == 512


def test_settings_behind_the_figures_of_pytorch_cutpaste():
    config = presets()["runinho"]
    assert not config.pretrained and not CutPaste(config).outputs
    assert (config.batch_size, config.epochs * config.steps_per_epoch) == (32, 10_000)
    assert (config.head_layers, config.normalize, config.hard_edges) == (1, True, True)


@pytest.mark.parametrize("hard", [True, False])
def test_hard_edges_paste_pixels_as_they_are(hard):
    config = dataclasses.replace(
        SMOKE, variant="scar", hard_edges=hard, piece_jitter=0.0, scar_width_min=16.0,
        scar_width_max=16.0,
    )  # fmt: skip
    noise = np.random.default_rng(0).uniform(0.1, 0.9, (64, 64, 3)).astype(np.float32)
    detector = CutPaste(dataclasses.replace(config, image_jitter=0.0))
    augment = jax.jit(lambda key, image: detector.apply({}, key, image, method="augment"))
    plain, scarred = np.asarray(augment(jax.random.key(0), noise))
    changed = scarred[(scarred != plain).any(-1)]
    assert len(changed) > 5
    away = cKDTree(plain.reshape(-1, 3)).query(changed)[0]
    assert away.max() < 1e-5 if hard else np.median(away) > 1e-3


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"variant": "2way"}, "variant.*3way"),
        ({"aspect": 0.0}, "aspect=0.0"),
        ({"area_min": 0.2}, "area_min=0.2, area_max=0.15"),
        ({"scar_width_min": 0.0}, "scar_width_min=0.0"),
        ({"area_max": 1.5}, "area_max=1.5"),
        ({"head_dim": -1}, "head_dim=-1"),
        ({"patch_size": 300}, "patch_size=300.*256"),
        ({"patch_stride": 0}, "patch_stride=0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        CutPasteConfig(**settings)


def test_scores_and_embeddings_of_bfloat16_are_float32():
    detector = CutPaste(dataclasses.replace(SMOKE, dtype="bfloat16"))
    variables = init_variables(detector, None, seed=0)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    found = jax.eval_shape(lambda x: detector.apply(variables, x, method="represent"), batch())
    assert found.dtype == jnp.float32
