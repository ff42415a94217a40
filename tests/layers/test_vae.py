"""The autoencoder of FAVAE against its tables, written out, and against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from imvad_jax.layers import vae
from imvad_jax.ops import resample

KEY = jax.random.key(0)
# (inputs, outputs, window, stride, padding) at 128 pixels, as in the common code.
ENCODER = (
    (3, 128, 4, 2, 1), (128, 128, 4, 2, 1), (128, 256, 3, 1, 1), (256, 256, 4, 2, 1),
    (256, 512, 3, 1, 1), (512, 512, 4, 2, 1), (512, 512, 3, 1, 1), (512, 32, 3, 1, 1),
    (32, 200, 8, 1, 0),
)  # fmt: skip
DECODER = (
    (100, 32, 8, 1, 0), (32, 512, 3, 1, 1), (512, 512, 3, 1, 1), (512, 512, 4, 2, 1),
    (512, 256, 3, 1, 1), (256, 256, 4, 2, 1), (256, 128, 3, 1, 1), (128, 128, 4, 2, 1),
    (128, 3, 4, 2, 1),
)  # fmt: skip
TAPS = (4, 6, 8)  # numbers of the layers that are compared with the teacher, deep to shallow


def moved(tree, seed=0):
    """Variables away from their start: scales and variances near 1, everything else at random."""
    rng = np.random.default_rng(seed)

    def move(path, leaf):
        noise = rng.uniform(-0.3, 0.3, leaf.shape)
        near_one = path[-1].key in ("scale", "var")
        return jnp.asarray(1 + noise if near_one else noise, jnp.float32)

    return jax.tree_util.tree_map_with_path(move, tree)


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def by_hand(table):
    """Weights and biases of the convolutions, and scale and shift after all but the last."""
    convolutions = sum(a * b * k * k + b for a, b, k, *_ in table)
    return convolutions, sum(2 * b for _, b, *_ in table[:-1])


def official():
    """Shapes of what encoder and decoder give at 128 pixels, and of their parameters."""

    def init(key):
        encoder, decoder = vae.Encoder(128, 100), vae.Decoder(128, (8, 8))
        latent, one = encoder.init_with_output(key, jnp.zeros((2, 128, 128, 3)), False)
        image, two = decoder.init_with_output(key, latent[0], False)
        return latent, image, one["params"], two["params"]

    return jax.eval_shape(init, KEY)


def test_shapes_at_128_pixels():
    latent, (image, maps), *_ = official()
    assert [part.shape for part in latent] == [(2, 100), (2, 100)]
    assert image.shape == (2, 128, 128, 3)
    assert [x.shape for x in maps] == [(2, 64, 64, 128), (2, 32, 32, 256), (2, 16, 16, 512)]


def test_layers_and_parameters_are_those_of_the_table():
    *_, encoder, decoder = official()
    total = 0
    for table, found in ((ENCODER, encoder), (DECODER, decoder)):
        for number, (inputs, outputs, window, *_) in enumerate(table, 1):
            layer = found[f"conv{number}"]
            layer = layer.get("conv", layer)
            assert layer["kernel"].shape == (window, window, inputs, outputs)
            assert layer["bias"].shape == (outputs,)
        convolutions, norms = by_hand(table)
        assert count(found) == convolutions + norms
        total += convolutions
    assert round(total / 1e6, 1) == 19.6
    adapters = sum(2 * (width * width + width) for width in (128, 256, 512))
    made = [
        jax.eval_shape(vae.Adapter(width).init, KEY, jax.ShapeDtypeStruct((1, 2, 2, width), "f4"))
        for width in (128, 256, 512)
    ]
    assert count(made) == adapters and round(adapters / 1e6, 2) == 0.69


def convolved(x, kernel, stride, padding):
    """Convolution of `[h, w, C]` in float64, one output channel at a time."""
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    planes = [correlate(x, kernel[..., d], "valid")[::stride, ::stride, 0] for d in
              range(kernel.shape[-1])]  # fmt: skip
    return np.stack(planes, -1)


def scattered(x, kernel, stride, padding):
    """Transposed convolution of `[h, w, C]`: every pixel adds its window."""
    rows, columns, _ = x.shape
    high, wide, _, features = kernel.shape
    out = np.zeros((stride * (rows - 1) + high, stride * (columns - 1) + wide, features))
    for i in range(rows):
        for j in range(columns):
            window = out[stride * i : stride * i + high, stride * j : stride * j + wide]
            window += np.einsum("c,uvcd->uvd", x[i, j], kernel)
    return out[padding : out.shape[0] - padding, padding : out.shape[1] - padding]


def run(table, variables, x, operation):
    """All raw outputs of the convolutions of a network, its running statistics in use."""
    found = []
    for number, (*_, stride, padding) in enumerate(table, 1):
        layer = variables["params"][f"conv{number}"]
        layer = layer.get("conv", layer)
        kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
        x = operation(x, kernel, stride, padding) + bias
        found.append(x)
        if number < len(table):
            norm = variables["params"][f"bn{number}"]
            kept = variables["batch_stats"][f"bn{number}"]
            x = (x - kept["mean"]) / np.sqrt(np.asarray(kept["var"], np.float64) + 1e-5)
            x = x * norm["scale"] + norm["bias"]
            x = np.where(x > 0, x, 0.2 * x)
    return found


@pytest.mark.slow
def test_encoder_layer_by_layer():
    images = np.random.default_rng(1).uniform(size=(2, 32, 48, 3))
    encoder = vae.Encoder(width=4, latent_size=5)
    single = jnp.asarray(images, jnp.float32)
    variables = moved(encoder.init(KEY, single, False))
    mean, log_variance = encoder.apply(variables, single, False)
    for index in range(2):
        expected = run(ENCODER, variables, images[index], convolved)[-1][0, 0]
        assert expected.shape == (10,) and expected.std() > 0.1
        np.testing.assert_allclose(mean[index], expected[:5], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(log_variance[index], expected[5:], rtol=1e-3, atol=1e-4)


def test_decoder_layer_by_layer_and_its_maps_before_norm_and_activation():
    latent = np.random.default_rng(1).normal(size=(2, 5))
    decoder = vae.Decoder(width=4, grid=(2, 3))
    single = jnp.asarray(latent, jnp.float32)
    variables = moved(decoder.init(KEY, single, False))
    image, maps = decoder.apply(variables, single, False)
    assert image.shape == (2, 32, 48, 3)
    for index in range(2):
        raw = run(DECODER, variables, latent[index][None, None], scattered)
        assert raw[-1].std() > 0.1
        np.testing.assert_allclose(image[index], 1 / (1 + np.exp(-raw[-1])), atol=1e-4)
        for number, found in zip(TAPS, maps[::-1], strict=True):
            assert raw[number - 1].min() < 0
            np.testing.assert_allclose(found[index], raw[number - 1], rtol=1e-3, atol=1e-4)


def test_training_uses_and_keeps_the_batch_statistics():
    images = np.random.default_rng(1).uniform(size=(3, 16, 16, 3))
    single = jnp.asarray(images, jnp.float32)
    encoder = vae.Encoder(width=4, latent_size=2)
    variables = encoder.init(KEY, single, False)
    _, changed = encoder.apply(variables, single, True, mutable=["batch_stats"])
    layer = variables["params"]["conv1"]["conv"]
    kernel = np.asarray(layer["kernel"], np.float64)
    first = np.stack([convolved(x, kernel, 2, 1) for x in images]) + layer["bias"]
    found = changed["batch_stats"]["bn1"]
    np.testing.assert_allclose(found["mean"], 0.1 * first.mean((0, 1, 2)), rtol=1e-4)
    variance = first.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * variance, rtol=1e-4)


@pytest.mark.parametrize(
    "module, fan_in",
    [
        (vae.Conv(300, (3, 3)), 20 * 9),
        (vae.TransposedConv(300, (3, 3)), 300 * 9),  # PyTorch counts its outputs
    ],
)
def test_weights_and_biases_start_as_pytorchs(module, fan_in):
    parameters = module.init(KEY, jnp.zeros((1, 4, 4, 20)))["params"]
    parameters = parameters.get("conv", parameters)
    bound = fan_in**-0.5
    for leaf in (parameters["kernel"], parameters["bias"]):
        values = np.asarray(leaf)
        assert 0.97 * bound < np.abs(values).max() <= bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.1)


def test_adapter():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 4))
    adapter = vae.Adapter(6)
    variables = moved(adapter.init(KEY, jnp.asarray(x, jnp.float32)))
    first, second = (variables["params"][name]["conv"] for name in ("conv1", "conv2"))
    hidden = np.maximum(x @ np.asarray(first["kernel"][0, 0]) + first["bias"], 0)
    expected = hidden @ np.asarray(second["kernel"][0, 0]) + second["bias"]
    assert (hidden == 0).any() and (expected < 0).any()
    found = adapter.apply(variables, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("grid", [(3, 4), (2, 5)])
def test_an_adapter_resizes_to_a_grid_as_if_it_did_last(grid):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8, 4)), jnp.float32)
    adapter = vae.Adapter(6)
    variables = moved(adapter.init(KEY, x))
    expected = resample.resize_bilinear(adapter.apply(variables, x), grid)
    np.testing.assert_allclose(adapter.apply(variables, x, grid), expected, atol=1e-5)
