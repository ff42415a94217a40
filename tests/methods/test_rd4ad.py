"""RD4AD against its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from imvad_jax import backbones
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.methods import rd4ad
from imvad_jax.methods.rd4ad import RD4AD, RD4ADConfig
from imvad_jax.presets.rd4ad import presets
from tests.methods.small import apply

LAYERS = ("layer1", "layer2", "layer3")
SMALL = {"backbone": "resnet18", "image_size": 64, "batch_size": 4, "embedding_channels": 32}


def drawn(count=4, size=64, seed=0):
    """Random images `[count, size, size, 3]` in [0, 1], smooth enough to differ."""
    small = np.random.default_rng(seed).uniform(0, 1, (count, size // 8, size // 8, 3))
    return np.kron(small, np.ones((1, 8, 8, 1))).astype(np.float32)


def created(detector, images):
    """The variables of a detector with random teacher and decoder, and its first loss."""
    spec = backbones.get(detector.config.backbone)
    frozen = {"backbone": load_weights(spec, "random", detector.outputs).variables}

    def create(key, batch):
        return detector.apply(
            frozen,
            batch,
            method="image_loss",
            mutable=["params", "batch_stats"],
            rngs={"params": key},
        )

    (loss, metrics), found = jax.jit(create)(jax.random.key(0), images)
    return frozen | found, loss, metrics


@pytest.fixture(scope="module")
def small():
    detector = RD4AD(RD4ADConfig(**SMALL))
    return detector, *created(detector, drawn())


def pairs(detector, variables, images, train=False):
    """Teacher's and restored maps by layer, shallow to deep, float64."""
    backbone = detector.config.backbone
    maps = apply(backbones.get(backbone).build(), variables["backbone"], images, outputs=LAYERS)
    teacher = [maps[name] for name in LAYERS]
    shapes = [x.shape[1:] for x in teacher]
    embedding, decoder = rd4ad.student_modules(detector.config, shapes)

    def run(module, name, x):
        part = {kind: variables[kind][name] for kind in ("params", "batch_stats")}
        return apply(module, part, x, train=train, mutable=("batch_stats",))[0]

    restored = run(decoder, "decoder", run(embedding, "embedding", teacher))[::-1]
    if backbone.startswith("resnet"):
        restored = [np.maximum(x, 0) for x in restored]
    return [tuple(np.asarray(x, np.float64) for x in pair) for pair in zip(teacher, restored)]


def cosine(a, b):
    """Of vectors along the last axis; 0 where one is zero."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(-1) / np.maximum(norms, 1e-30)


def enlarged(image, side):
    """Bilinear interpolation that maps corners onto corners: `[h, w] -> [side, side]`."""
    n, out = image.shape[0], np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y, x = (k * (n - 1) / (side - 1) for k in (i, j))
            y0, x0 = min(int(y), n - 2), min(int(x), n - 2)
            top = image[y0, x0] * (x0 + 1 - x) + image[y0, x0 + 1] * (x - x0)
            low = image[y0 + 1, x0] * (x0 + 1 - x) + image[y0 + 1, x0 + 1] * (x - x0)
            out[i, j] = top * (y0 + 1 - y) + low * (y - y0)
    return out


def test_loss_is_one_cosine_an_image_and_layer(small):
    detector, variables, loss, metrics = small
    expected = [
        (1 - cosine(a.reshape(4, -1), b.reshape(4, -1))).mean()
        for a, b in pairs(detector, variables, drawn(), train=True)
    ]
    np.testing.assert_allclose([metrics[name] for name in LAYERS], expected, rtol=1e-4)
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-4)


def test_loss_per_position_is_the_mean_cosine_over_positions(small):
    _, variables, *_ = small
    detector = RD4AD(RD4ADConfig(**SMALL, per_position_loss=True))
    (loss, _), _ = apply(
        detector, variables, drawn(), method="image_loss", mutable=("batch_stats",)
    )
    expected = [(1 - cosine(a, b)).mean() for a, b in pairs(detector, variables, drawn(), True)]
    np.testing.assert_allclose(loss, sum(expected), rtol=1e-4)


def test_map_is_the_smoothed_sum_of_aligned_enlarged_distances(small):
    detector, variables, *_ = small
    images = drawn(2, seed=1)
    prediction = apply(detector, variables, images)
    restored = pairs(detector, variables, images)
    for index in range(2):
        total = sum(enlarged(1 - cosine(a[index], b[index]), 64) for a, b in restored)
        expected = gaussian_filter(total, 4)
        np.testing.assert_allclose(prediction.anomaly_map[index], expected, rtol=1e-3)
        np.testing.assert_allclose(prediction.score[index], expected.max(), rtol=1e-3)


def test_gradient_of_the_cosine_distance_against_finite_differences():
    rng = np.random.default_rng(0)
    a, b, step = rng.normal(size=(2, 3, 3, 5)), rng.normal(size=(2, 3, 3, 5)), 1e-6

    def loss(b):
        return (1 - cosine(a.reshape(2, -1), b.reshape(2, -1))).mean()

    expected = np.zeros_like(b)
    for index in np.ndindex(*b.shape):
        for sign in (1, -1):
            moved = b.copy()
            moved[index] += sign * step
            expected[index] += sign * loss(moved) / (2 * step)

    def found(b):
        return rd4ad.cosine_distance(rd4ad.products(jnp.asarray(a), b).sum((2, 3))).mean()

    slope = jax.grad(found)(jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-6)


def test_zero_features_are_far_from_everything_and_have_a_finite_gradient():
    a, zero = jnp.ones((1, 1, 1, 4)), jnp.zeros((1, 1, 1, 4))

    def distance(x):
        return rd4ad.cosine_distance(rd4ad.products(a, jax.nn.relu(x)))[0, 0, 0]

    assert float(distance(zero)) == 1
    np.testing.assert_array_equal(jax.grad(distance)(zero - 1), zero)
    np.testing.assert_allclose(distance(3 * a), 0, atol=1e-6)


def test_only_embedding_and_decoder_learn_and_their_loss_falls(small):
    detector, variables, first, _ = small
    assert set(variables["params"]) == {"embedding", "decoder"}

    def loss(params, images):
        (value, _), _ = detector.apply(
            {**variables, "params": params}, images, method="image_loss", mutable=["batch_stats"]
        )
        return value

    @jax.jit
    def descend(params, images):
        value, slope = jax.value_and_grad(loss)(params, images)
        return jax.tree.map(lambda p, g: p - g, params, slope), value

    params = variables["params"]
    for _ in range(8):
        params, value = descend(params, drawn())
    assert float(value) < 0.8 * float(first)


@pytest.mark.slow
def test_widths_of_a_teacher_that_is_no_resnet_are_those_of_its_maps():
    detector = RD4AD(RD4ADConfig(backbone="efficientnet_lite0", image_size=64, batch_size=2))
    variables, loss, _ = created(detector, drawn(2))
    assert np.isfinite(float(loss))
    restored = pairs(detector, variables, drawn(2))
    assert [b.shape[-1] for _, b in restored] == [24, 40, 112]
    # Its features have both signs, and so can what is restored.
    assert all(a.min() < 0 and b.min() < 0 for a, b in restored)
    found = apply(detector, variables, drawn(2)).anomaly_map
    total = sum(enlarged(1 - cosine(a[0], b[0]), 64) for a, b in restored)
    np.testing.assert_allclose(found[0], gaussian_filter(total, 4), rtol=1e-3)


def test_the_modules_mirror_the_teacher():
    def modules(backbone, **settings):
        detector = RD4AD(RD4ADConfig(backbone=backbone, **settings))
        return rd4ad.student_modules(detector.config, list(detector.feature_shapes().values()))

    embedding, decoder = modules("wide_resnet50_2")
    assert (embedding.filters, embedding.depth) == (512, 3)
    assert (decoder.filters, decoder.depths) == ((256, 128, 64), (3, 4, 6))
    embedding, decoder = modules("resnet18")
    assert (embedding.filters, embedding.depth) == (512, 2)
    assert (decoder.filters, decoder.depths) == ((256, 128, 64), (2, 2, 2))
    assert modules("resnet50", embedding_channels=1024)[0].filters == 256


def test_the_embedding_of_the_published_table_is_narrower_inside():
    config = presets()["benchmark"]
    assert (config.batch_size, config.weight_decay) == (8, 1e-6)
    assert (config.beta1, config.beta2, config.learning_rate) == (0.9, 0.999, 5e-3)

    def inner(config):
        shapes = list(RD4AD(config).feature_shapes().values())
        embedding, decoder = rd4ad.student_modules(config, shapes)
        maps = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = jax.eval_shape(lambda k, m: embedding.init(k, m, train=False), key, maps)
        blocks = [made["params"][f"block{index}"] for index in range(3)]
        return [block["conv2"]["kernel"].shape[-2:] for block in blocks], decoder

    wide, decoder = inner(presets()["official"])
    narrow, same = inner(config)
    assert (wide, narrow) == ([(1024, 1024)] * 3, [(512, 512)] * 3)
    assert decoder == same


@pytest.mark.parametrize("size", [80, 100])
def test_sizes_that_do_not_halve_are_refused(size):
    detector = RD4AD(RD4ADConfig(backbone="resnet18", image_size=size))
    with pytest.raises(UserError, match=f"image_size={size}.*multiple of 32"):
        detector.memory_estimate(10, 1)


@pytest.mark.slow
def test_bfloat16_computes_distances_in_float32(small):
    detector = RD4AD(RD4ADConfig(**SMALL, dtype="bfloat16"))
    variables, loss, _ = created(detector, drawn())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables["params"]))
    prediction = jax.eval_shape(detector.apply, variables, drawn())
    assert loss.dtype == prediction.score.dtype == prediction.anomaly_map.dtype == jnp.float32
    np.testing.assert_allclose(loss, small[2], rtol=0.05)


def test_official_settings():
    config = RD4ADConfig()
    assert (config.backbone, config.input_size, config.batch_size) == ("wide_resnet50_2", 256, 16)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 5e-3, 0)
    assert (config.beta1, config.beta2, config.epochs, config.sigma) == (0.5, 0.999, 200, 4)
    assert not config.per_position_loss
