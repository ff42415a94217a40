"""FAVAE against its formulas in numpy, scipy and scikit-image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.ndimage import gaussian_filter
from scipy.stats import norm
from skimage import transform

from imvad_jax import backbones
from imvad_jax.backbones import resnet
from imvad_jax.errors import UserError
from imvad_jax.methods import favae
from imvad_jax.methods.favae import FAVAE, FAVAEConfig
from imvad_jax.presets.favae import presets
from tests.methods.small import images, make

LAYERS = ("layer1_pre", "layer1", "layer2")
NOISE = {"noise": jax.random.key(7)}


def batch(count=3, seed=1):
    return jnp.asarray(images(count, seed).images, jnp.float32) / 255


@pytest.fixture(scope="module")
def small():
    """A detector of the smoke preset, its parameters and statistics moved from their start."""
    detector, variables = make("favae", kld_weight=3.5)
    rng = np.random.default_rng(0)
    moved = {
        name: jax.tree.map(
            lambda leaf: np.asarray(leaf) + rng.uniform(0, 0.02, leaf.shape).astype(np.float32),
            variables[name],
        )
        for name in ("params", "batch_stats")
    }
    return detector, variables | moved


@functools.lru_cache
def compiled(detector, method):
    """A method as a function of variables and arguments; changed statistics are thrown away."""

    def run(variables, *arguments):
        return detector.apply(
            variables, *arguments, method=method, mutable=["batch_stats"], rngs=NOISE
        )[0]

    return jax.jit(run)


def call(detector, variables, *arguments, method):
    return compiled(detector, method)(variables, *arguments)


def test_divergence_is_the_integral():
    mean, log_variance = np.array([[0.3, -1.2], [2.0, 0.0]]), np.array([[0.5, -1.0], [1.1, 0.0]])
    for row in range(2):
        expected = 0.0
        for m, v in zip(mean[row], log_variance[row]):
            q, p = norm(m, np.exp(v / 2)), norm()
            expected += quad(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), -15, 15)[0]  # noqa: B023
        found = favae.kl_divergence(jnp.asarray(mean), jnp.asarray(log_variance))[row]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_latent_vectors_have_the_mean_and_variance_asked_for_and_a_key_each():
    mean, log_variance = jnp.asarray([1.0, -2.0, 0.0]), jnp.asarray([0.0, 2.0, -3.0])
    keys = jax.random.split(jax.random.key(0), 20_000)
    rows = jnp.broadcast_to(mean, (20_000, 3)), jnp.broadcast_to(log_variance, (20_000, 3))

    def draw(rows, keys):
        return np.asarray(favae.sampled(*rows, favae.standard_normal(keys, rows[0])))

    found = draw(rows, keys)
    deviation = np.exp(np.asarray(log_variance) / 2)
    np.testing.assert_allclose(found.mean(0), mean, atol=4 * deviation.max() / 20_000**0.5)
    np.testing.assert_allclose(found.std(0), deviation, rtol=0.03)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.03
    again = draw([row[:2] for row in rows], keys[1::-1])
    np.testing.assert_array_equal(again, found[1::-1])


def without_noise(variables):
    """The same but for latent vectors that are their mean: log variances of -60."""
    params = jax.tree.map(jnp.asarray, variables["params"])
    layer = params["encoder"]["conv9"]["conv"]
    half = layer["bias"].size // 2
    layer["kernel"] = layer["kernel"].at[..., half:].set(0)
    layer["bias"] = layer["bias"].at[half:].set(-60)
    return variables | {"params": params}


def narrow(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def restored(detector, variables, x, train):
    """Targets and what the networks restore from the mean, float64."""
    targets = call(detector, variables, x, method="targets")

    def run(module, x):
        mean, _ = module.encoder(x, train)
        grids = [targets[name].shape[1:3] for name in LAYERS]
        return mean, module.restored(mean, grids, train)

    mean, found = call(detector, variables, x, method=run)
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (targets, found, mean))
    assert set(wide[0]) == set(wide[1]) == {"images", *LAYERS}
    return wide


def test_loss_is_the_sum_of_squares_and_divergence_averaged_over_images(small):
    detector, variables = small
    variables = without_noise(variables)
    targets, found, mean = restored(detector, variables, batch(), True)
    expected = {name: ((targets[name] - found[name]) ** 2).sum() / 3 for name in targets}
    expected["kl"] = 0.5 * (mean**2 + np.exp(-60) - 1 + 60).sum() / 3
    loss, metrics = call(detector, variables, narrow(targets), method="loss")
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
    assert detector.config.kld_weight == 3.5
    np.testing.assert_allclose(loss, sum(expected.values()) + 2.5 * expected["kl"], rtol=1e-4)


def enlarged(values, size):
    """`[h, w]` at `size` x `size`: half-pixel centres, clamped at the edge."""
    for axis in (0, 1):
        n = values.shape[axis]
        at = (np.arange(size) + 0.5) * n / size - 0.5
        rows = [np.interp(at, np.arange(n), row) for row in np.moveaxis(values, axis, -1)]
        values = np.moveaxis(np.stack(rows), -1, axis)
    return values


def test_map_is_the_smoothed_sum_of_the_enlarged_squares_and_its_maximum_the_score(small):
    detector, variables = small
    targets, found, _ = restored(detector, variables, batch(), False)
    prediction = jax.jit(detector.apply)(variables, batch())
    for index in range(3):
        squares = [((targets[name] - found[name])[index] ** 2).sum(-1) for name in targets]
        total = sum(enlarged(square, 64) for square in squares)
        expected = gaussian_filter(total, 4, mode="reflect")
        np.testing.assert_allclose(prediction.anomaly_map[index], expected, rtol=1e-3)
        np.testing.assert_allclose(prediction.score[index], expected.max(), rtol=1e-3)


def test_adapted_maps_are_brought_to_a_coarser_grid_by_averaging(small):
    detector, variables = small
    latent = jnp.ones((1, detector.config.latent_size))

    def run(module, latent, level):
        grids = [(32 >> level, 32 >> level), (16 >> level, 16 >> level), (8 >> level, 8 >> level)]
        return module.restored(latent, grids, False)

    fine, coarse = (
        call(detector, variables, latent, method=lambda m, z, n=level: run(m, z, n))
        for level in (0, 1)
    )
    for name in LAYERS:
        _, height, width, channels = fine[name].shape
        blocks = np.asarray(fine[name]).reshape(1, height // 2, 2, width // 2, 2, channels)
        np.testing.assert_allclose(coarse[name], blocks.mean((2, 4)), atol=1e-5)


@pytest.mark.parametrize("normalize", [True, False])
def test_what_the_teacher_sees(small, monkeypatch, normalize):
    detector, variables = small
    detector = FAVAE(dataclasses.replace(detector.config, normalize_teacher=normalize))
    targets = detector.apply(variables, batch(), method="targets")
    if not normalize:  # a network that does not normalise
        monkeypatch.setattr(resnet, "MEAN", (0.0, 0.0, 0.0))
        monkeypatch.setattr(resnet, "STD", (1.0, 1.0, 1.0))
    module = backbones.get("resnet18").build()
    expected = module.apply(variables["backbone"], batch(), outputs=LAYERS)
    np.testing.assert_array_equal(targets["images"], batch())
    for name in LAYERS:
        np.testing.assert_allclose(targets[name], expected[name], rtol=1e-3, atol=1e-3)


def test_turning_against_scikit_image():
    image = np.random.default_rng(0).uniform(size=(25, 25, 3))
    found = jax.vmap(favae.turned, (None, 0))(
        jnp.asarray(image, jnp.float32), jnp.deg2rad(jnp.asarray([-15.0, 0.0, 8.0]))
    )
    for angle, turned in zip((-15, 0, 8), found):
        radians = np.deg2rad(abs(angle))
        side = 1 / (np.cos(radians) + np.sin(radians))  # of the largest upright square within
        to_middle = transform.AffineTransform(translation=(-12, -12))
        # skimage's rows point down: a positive rotation looks up pixels that lie clockwise.
        turn = transform.AffineTransform(rotation=np.deg2rad(angle), scale=(side, side))
        expected = transform.warp(image, to_middle + turn + to_middle.inverse, order=1)
        np.testing.assert_allclose(turned[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-4)
        counter_clockwise = transform.rotate(image, angle, order=1)  # about the same middle
        np.testing.assert_allclose(turned[12, 12], counter_clockwise[12, 12], atol=1e-4)


def test_a_turned_image_is_turned_counter_clockwise_and_has_no_empty_corner():
    for angle in np.deg2rad([-15, -3, 10, 15]):
        flat = favae.turned(jnp.ones((16, 16, 3)), angle)
        np.testing.assert_allclose(flat, 1, atol=1e-4)
    spot = np.zeros((41, 41, 1), np.float32)
    spot[19:22, 34:37] = 1  # to the right of the middle
    rows, columns = np.nonzero(np.asarray(favae.turned(spot, np.deg2rad(10)))[..., 0] > 0.5)
    zoom = np.cos(np.deg2rad(10)) + np.sin(np.deg2rad(10))
    assert abs(rows.mean() - (20 - 15 * zoom * np.sin(np.deg2rad(10)))) < 0.5  # rises
    assert abs(columns.mean() - (20 + 15 * zoom * np.cos(np.deg2rad(10)))) < 0.5


def test_each_augmentation_comes_three_times_in_ten():
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(8, 8, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(1), 2000)
    found = np.asarray(jax.jit(jax.vmap(favae.augmented, (None, 0)))(image, keys))
    plain = np.asarray(image)
    flips = {name: (found == flipped).all((1, 2, 3)).mean() for name, flipped in (
        ("none", plain), ("rows", plain[::-1]), ("columns", plain[:, ::-1]),
        ("both", plain[::-1, ::-1]),
    )}  # fmt: skip
    expected = {"none": 0.343, "rows": 0.147, "columns": 0.147, "both": 0.063}
    assert flips == pytest.approx(expected, abs=4 * 0.5 / 2000**0.5)
    assert len(np.unique(found.reshape(2000, -1), axis=0)) > 550  # every rotation its own angle


def test_images_are_turned_by_up_to_15_degrees_either_way(monkeypatch):
    monkeypatch.setattr(favae, "turned", jnp.full_like)  # the angle in place of the image
    keys = jax.random.split(jax.random.key(2), 2000)
    image = jnp.full((1, 1, 1), 9.0)
    found = np.asarray(jax.jit(jax.vmap(favae.augmented, (None, 0)))(image, keys)).ravel()
    angles = np.rad2deg(found[found != 9])
    assert -15 <= angles.min() < -14.5 and 14.5 < angles.max() <= 15
    assert abs(angles.mean()) < 4 * 15 / np.sqrt(3 * len(angles))


def test_augmented_images_are_compared_with_their_own_features(small):
    detector, variables = small
    augmenting = FAVAE(dataclasses.replace(detector.config, augment=True, cache_features=False))
    x = batch()
    np.testing.assert_array_equal(augmenting.apply(variables, x, method="frozen_features"), x)

    def draw(module, x):
        return jax.vmap(favae.augmented)(x, jax.vmap(jax.random.split)(module.image_keys(3))[:, 0])

    changed = call(detector, variables, x, method=draw)
    assert (np.asarray(changed) != x).any()
    expected, plain = (
        call(detector, variables, call(detector, variables, y, method="targets"), method="loss")[0]
        for y in (changed, x)
    )
    found, _ = call(augmenting, variables, x, method="image_loss")
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(found - plain) > 1e-3 * plain


def test_half_precision_computes_losses_and_scores_in_float32(small):
    detector, variables = small
    half = FAVAE(dataclasses.replace(detector.config, dtype="bfloat16"))
    prediction = jax.eval_shape(half.apply, variables, batch())
    (loss, _), _ = jax.eval_shape(
        lambda v, x: half.apply(v, x, method="image_loss", mutable=["batch_stats"], rngs=NOISE),
        variables, batch(),
    )  # fmt: skip
    assert loss.dtype == prediction.score.dtype == prediction.anomaly_map.dtype == jnp.float32


def test_official_settings_and_sizes():
    config = presets()["official"]
    assert (config.backbone, config.input_size, config.batch_size) == ("vgg16", 128, 64)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 5e-3, 1e-5)
    assert (config.epochs, config.kld_weight, config.augment) == (100, 1, True)
    assert not config.normalize_teacher and config.sigma == 4
    assert config.steps_per_epoch == 8_000 // 64  # a fifth of 10,000 is held out
    assert FAVAEConfig().steps_per_epoch == -(-10_000 // 64)
    detector = FAVAE(config)
    shapes = detector.feature_shapes()
    assert list(shapes.values()) == [(64, 64, 128), (32, 32, 256), (16, 16, 512)]
    parts = jax.eval_shape(
        lambda key: detector.init(
            {"params": key}, jnp.zeros((1, 100)), [shape[:2] for shape in shapes.values()], False,
            method="restored",
        )["params"],
        jax.random.key(0),
    )  # fmt: skip
    adapters = [part for name, part in parts.items() if name.startswith("adapters")]
    assert sum(leaf.size for leaf in jax.tree.leaves(adapters)) == 689_920
    grids = jax.eval_shape(
        lambda p, z: detector.apply({"params": p}, z, method=lambda m, z: m.decoder(z, True)[1],
                                    mutable=["batch_stats"])[0],
        parts, jnp.zeros((1, 100)),
    )  # fmt: skip
    assert [grid.shape[1:] for grid in grids] == list(shapes.values())  # nothing is resized


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone": "resnet18"}, "layers=relu8,relu15,relu22: resnet18 has no feature map 're"),
        ({"layers": ("relu15", "relu8", "relu22")}, "shallow to deep.*strides \\[4, 2, 8\\]"),
        ({"layers": ("relu8", "relu22")}, "expected three feature maps"),
        ({"layers": ("relu8", "relu8", "relu22")}, "expected three feature maps"),
        ({"image_size": 120}, "image_size=120 crop_size=0: .* multiple of 16 pixels"),
        ({"cache_features": True}, "augment=True cache_features=True"),
        ({"width": 2}, "width=2: must be at least 4"),
        ({"latent_size": 0}, "latent_size=0"),
        ({"kld_weight": -1.0}, "kld_weight=-1.0"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(UserError, match=message):
        FAVAEConfig(**changes)
