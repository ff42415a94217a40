"""STPM against its definition in float64."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.methods import stpm
from imvad_jax.methods.stpm import STPM, STPMConfig
from imvad_jax.presets.stpm import presets
from imvad_jax.training.fit import init_variables
from tests.methods.small import apply

LAYERS = ("layer1", "layer2", "layer3")


def drawn(count=4, size=64, seed=0):
    """Random images `[count, size, size, 3]` in [0, 1], smooth enough to differ."""
    small = np.random.default_rng(seed).uniform(0, 1, (count, size // 8, size // 8, 3))
    return np.kron(small, np.ones((1, 8, 8, 1))).astype(np.float32)


def teacher_of(config):
    spec = backbones.get(config.backbone)
    return load_weights(spec, "random", config.layers).variables


def created(detector, images, seed=0):
    """The variables of a detector with random teacher and student, and its first loss."""
    frozen = {"backbone": teacher_of(detector.config)}

    def create(key, batch):
        return detector.apply(
            frozen,
            batch,
            method="image_loss",
            mutable=["params", "batch_stats"],
            rngs={"params": key},
        )

    (loss, metrics), found = jax.jit(create)(jax.random.key(seed), images)
    return frozen | found, loss, metrics


@pytest.fixture(scope="module")
def small():
    detector = STPM(STPMConfig(image_size=64, batch_size=4))
    return detector, *created(detector, drawn())


def features(collections, images, train=False, backbone="resnet18"):
    """Maps of a network with the given variables, float64."""
    maps, _ = apply(
        backbones.get(backbone).build(), collections, images,
        outputs=LAYERS, train=train, mutable=("batch_stats",),
    )  # fmt: skip
    return [np.asarray(maps[name], np.float64) for name in LAYERS]


def student_of(variables):
    return {name: variables[name]["student"] for name in ("params", "batch_stats")}


def squared_distance(a, b):
    a, b = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (a, b))
    return ((a - b) ** 2).sum(-1)


def enlarged(image, side):
    """Bilinear interpolation with half-pixel centres, sample by sample: `[h, w] -> [side, side]`"""
    n, out = image.shape[0], np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y, x = (np.clip((k + 0.5) * n / side - 0.5, 0, n - 1) for k in (i, j))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, n - 1), min(x0 + 1, n - 1)
            top = image[y0, x0] * (x0 + 1 - x) + image[y0, x1] * (x - x0)
            low = image[y1, x0] * (x0 + 1 - x) + image[y1, x1] * (x - x0)
            out[i, j] = top * (y0 + 1 - y) + low * (y - y0)
    return out


def test_loss_is_the_mean_squared_distance_of_unit_vectors_summed_over_layers(small):
    _, variables, loss, metrics = small
    teacher = features(variables["backbone"], drawn())
    # The loss saw the batch statistics; running ones do not matter in train mode.
    student = features(student_of(variables), drawn(), train=True)
    expected = [squared_distance(t, s).mean() for t, s in zip(teacher, student)]
    np.testing.assert_allclose([metrics[name] for name in LAYERS], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-4)


def test_map_is_the_product_on_the_first_grid_enlarged_and_its_maximum_the_score(small):
    detector, variables, *_ = small
    images = drawn(2, seed=1)
    teacher = features(variables["backbone"], images)
    student = features(student_of(variables), images)
    prediction = apply(detector, variables, images)
    for index in range(2):
        product = np.ones((16, 16))
        for t, s in zip(teacher, student):
            product *= enlarged(squared_distance(t[index], s[index]), 16)
        expected = enlarged(product, 64)
        np.testing.assert_allclose(
            prediction.anomaly_map[index], expected, rtol=1e-3, atol=1e-4 * expected.max()
        )
        np.testing.assert_allclose(prediction.score[index], expected.max(), rtol=1e-3)
    assert prediction.anomaly_map.dtype == jnp.float32


def test_a_student_that_is_the_teacher_scores_zero(small):
    detector, variables, *_ = small
    same = {name: {"student": variables["backbone"][name]} for name in ("params", "batch_stats")}
    prediction = detector.apply({"backbone": variables["backbone"], **same}, drawn())
    assert float(prediction.score.max()) < 1e-18


@pytest.fixture(scope="module")
def table_detector():
    """The recipe of the published table, small, with a student that has left the teacher."""
    config = dataclasses.replace(presets()["benchmark"], image_size=64, batch_size=4)
    detector = STPM(config)
    variables = init_variables(detector, teacher_of(config), seed=0)
    rng = np.random.default_rng(0)
    moved = jax.tree.map(
        lambda p: np.asarray(p) + 0.02 * rng.standard_normal(p.shape).astype(np.float32),
        variables["params"],
    )
    return detector, variables, variables | {"params": moved}


def test_a_student_that_starts_as_its_teacher(table_detector, small):
    detector, started, _ = table_detector
    for name in ("params", "batch_stats"):
        same = jax.tree.map(np.array_equal, started[name]["student"], started["backbone"][name])
        assert all(jax.tree.leaves(same))
        assert jax.tree.structure(started[name]) == jax.tree.structure(small[1][name])
    assert float(detector.apply(started, drawn()).score.max()) < 1e-18


def test_loss_of_the_table_is_half_the_sum_over_the_batch(table_detector):
    detector, _, variables = table_detector
    (loss, metrics), _ = jax.jit(
        lambda v, x: detector.apply(v, x, method="image_loss", mutable=["batch_stats"])
    )(variables, drawn())
    teacher = features(variables["backbone"], drawn())
    student = features(student_of(variables), drawn(), train=True)
    expected = [
        0.5 / np.prod(t.shape[1:3]) * squared_distance(t, s).sum() for t, s in zip(teacher, student)
    ]
    np.testing.assert_allclose([metrics[name] for name in LAYERS], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-4)


def test_map_of_the_table_is_the_product_at_full_size(table_detector):
    detector, _, variables = table_detector
    image = drawn(1, seed=1)
    teacher = features(variables["backbone"], image)
    student = features(student_of(variables), image)
    product = np.ones((64, 64))
    for t, s in zip(teacher, student):
        product *= enlarged(squared_distance(t[0], s[0]), 64)
    found = np.asarray(apply(detector, variables, image).anomaly_map[0])
    np.testing.assert_allclose(found, product, rtol=1e-3, atol=1e-4 * product.max())


def test_settings_of_the_published_table():
    config = presets()["benchmark"]
    assert (config.batch_size, config.weight_decay, config.epochs) == (8, 1e-5, 100)
    assert (config.learning_rate, config.momentum, config.input_size) == (0.4, 0.9, 256)
    with pytest.raises(UserError, match="student_start: unknown value 'copy'"):
        STPMConfig(student_start="copy")


def test_the_student_is_as_deep_as_the_last_layer_in_use_and_starts_apart_from_the_teacher(small):
    _, variables, *_ = small
    student, teacher = variables["params"]["student"], variables["backbone"]["params"]
    assert jax.tree.structure(student) == jax.tree.structure(teacher)
    assert not any(name.startswith(("layer4", "fc")) for name in student)
    kernel = np.asarray(student["layer3_1"]["conv2"]["kernel"])
    # Kaiming normal by fan out, not truncated: std sqrt(2 / (9 * 256))
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()
    assert not np.allclose(kernel, teacher["layer3_1"]["conv2"]["kernel"])


def test_only_the_student_learns_and_its_loss_falls(small):
    detector, variables, first, _ = small

    def loss(params, batch_stats, images):
        (value, _), changed = detector.apply(
            {**variables, "params": params, "batch_stats": batch_stats},
            images,
            method="image_loss",
            mutable=["batch_stats"],
        )
        return value, changed["batch_stats"]

    @jax.jit
    def descend(params, batch_stats, images):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, batch_stats), slope = gradient(params, batch_stats, images)
        return jax.tree.map(lambda p, g: p - 0.4 * g, params, slope), batch_stats, value

    params, batch_stats = variables["params"], variables["batch_stats"]
    for _ in range(8):
        params, batch_stats, value = descend(params, batch_stats, drawn())
    assert float(value) < 0.8 * float(first)
    before = variables["batch_stats"]["student"]["bn1"]["mean"]
    assert not np.allclose(batch_stats["student"]["bn1"]["mean"], before)


def test_zero_features_give_a_distance_and_a_finite_gradient():
    a, zero = jnp.asarray([[3.0, 4.0]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(stpm.distance(a, zero), [1.0], rtol=1e-6)
    assert float(stpm.distance(zero, zero)[0]) == 0
    slope = jax.grad(lambda x: stpm.distance(a, jax.nn.relu(x))[0])(zero - 1)
    np.testing.assert_array_equal(slope, np.zeros((1, 2)))
    tiny = jnp.asarray([[3e-8, 4e-8]])  # squares near the smallest float32
    np.testing.assert_allclose(stpm.unit_vectors(tiny), [[0.6, 0.8]], rtol=1e-5)


def test_gradient_of_the_distance_against_finite_differences():
    rng = np.random.default_rng(0)
    t, s, step = rng.normal(size=(5, 7)), rng.normal(size=(5, 7)), 1e-6
    expected = np.zeros_like(s)
    for index in np.ndindex(*s.shape):
        for sign in (1, -1):
            moved = s.copy()
            moved[index] += sign * step
            expected[index] += sign * squared_distance(t, moved).mean() / (2 * step)
    found = jax.grad(lambda x: stpm.distance(jnp.asarray(t), x).mean())(jnp.asarray(s, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_bfloat16_computes_distances_in_float32(small):
    detector = STPM(STPMConfig(image_size=64, batch_size=4, dtype="bfloat16"))
    variables, loss, _ = created(detector, drawn())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables["params"]))
    prediction = jax.eval_shape(detector.apply, variables, drawn())
    assert loss.dtype == prediction.score.dtype == prediction.anomaly_map.dtype == jnp.float32
    np.testing.assert_allclose(loss, small[2], rtol=0.05)


def test_official_settings():
    config = STPMConfig()
    assert (config.backbone, config.input_size, config.batch_size) == ("resnet18", 256, 32)
    assert (config.optimizer, config.learning_rate, config.momentum) == ("sgd", 0.4, 0.9)
    assert (config.weight_decay, config.epochs) == (1e-4, 100)
    assert STPM(config).feature_shapes() == {
        "layer1": (64, 64, 64), "layer2": (32, 32, 128), "layer3": (16, 16, 256)
    }  # fmt: skip
