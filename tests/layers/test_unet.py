"""DRAEM's networks: sizes and starts of the official ones, small ones against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork
from tests.layers.test_decoder import convolved, relu

# Channels in and out of every 3x3 convolution with batch norm, in order.
RECONSTRUCTIVE = [
    (3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512),
    (512, 1024), (1024, 1024), (1024, 1024), (1024, 1024),
    (1024, 1024), (1024, 1024), (1024, 512), (512, 512), (512, 512), (512, 256),
    (256, 256), (256, 256), (256, 128), (128, 128), (128, 128), (128, 128),
]  # fmt: skip
DISCRIMINATIVE = [
    (6, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256),
    (256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512),
    (512, 512), (1024, 512), (512, 512), (512, 256), (768, 256), (256, 256),
    (256, 128), (384, 128), (128, 128), (128, 64), (192, 64), (64, 64),
    (64, 64), (128, 64), (64, 64),
]  # fmt: skip


def parameters(module, channels, size=64):
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    made = jax.eval_shape(lambda k, x: module.init(k, x, train=False), jax.random.key(0), image)
    return made["params"]


@pytest.mark.parametrize(
    "module, channels, blocks, outputs",
    [
        (ReconstructiveNetwork(), 3, RECONSTRUCTIVE, 3),
        (DiscriminativeNetwork(), 6, DISCRIMINATIVE, 2),
    ],
    ids=["reconstructive", "discriminative"],
)
def test_official_widths(module, channels, blocks, outputs):
    made = jax.tree.leaves_with_path(parameters(module, channels))
    kernels = sorted(leaf.shape for path, leaf in made if path[-1].key == "kernel")
    last = (3, 3, blocks[-1][1], outputs)
    assert kernels == sorted([(3, 3, *block) for block in blocks] + [last])
    # Weights, biases, and scale and shift of the batch norm; the last has none.
    expected = sum(9 * i * o + 3 * o for i, o in blocks) + 9 * blocks[-1][1] * outputs + outputs
    assert sum(leaf.size for _, leaf in made) == expected


def test_start():
    module = DiscriminativeNetwork((16, 128))
    init = jax.jit(lambda key: module.init(key, jnp.zeros((1, 4, 4, 6)), train=False))
    params = init(jax.random.key(0))["params"]
    kernel = np.asarray(params["encoder1"]["conv1"]["kernel"])
    assert abs(kernel.mean()) < 1e-3
    np.testing.assert_allclose(kernel.std(), 0.02, rtol=0.02)
    bias = np.asarray(params["encoder1"]["conv0"]["bias"])
    assert 0.9 / 12 < np.abs(bias).max() <= 1 / 12  # 9 * 16 inputs
    np.testing.assert_allclose(bias.std(), 1 / 12 / np.sqrt(3), rtol=0.15)
    np.testing.assert_allclose(np.std(params["output"]["kernel"]), 0.02, rtol=0.15)
    norm = params["encoder1"]["bn1"]
    assert abs(np.corrcoef(bias, norm["scale"])[0, 1]) < 0.4  # of numbers of their own
    np.testing.assert_allclose(norm["scale"].mean(), 1, atol=0.01)
    np.testing.assert_allclose(norm["scale"].std(), 0.02, rtol=0.3)
    np.testing.assert_array_equal(norm["bias"], 0)


def moved(module, x):
    """Variables away from their start, statistics too, drawn."""
    rng = np.random.default_rng(0)
    made = jax.eval_shape(lambda k: module.init(k, x, train=False), jax.random.key(0))

    def draw(path, leaf):
        low = 0.5 if path[-1].key in ("scale", "var") else -0.3
        return rng.uniform(low, low + 0.8, leaf.shape).astype(np.float32)

    return jax.tree.map_with_path(draw, made)


class Numpy:
    """The layers in float64, on one image `[h, w, C]`, in evaluation mode."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables["batch_stats"]

    def plain(self, x, conv):
        return convolved(x, conv["kernel"], 1) + conv["bias"]

    def block(self, x, name):
        params, stats = self.params[name], self.stats[name]
        for i in range(len(stats)):
            norm, seen = params[f"bn{i}"], stats[f"bn{i}"]
            x = self.plain(x, params[f"conv{i}"])
            x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
            x = relu(x)
        return x

    def halved(self, x):
        return x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))

    def doubled(self, x):
        for axis in (0, 1):
            n = x.shape[axis]
            at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
            x = np.apply_along_axis(lambda v, at=at: np.interp(at, range(len(v)), v), axis, x)
        return x


def test_reconstruction_layer_by_layer():
    x = np.random.default_rng(1).uniform(0, 1, (2, 8, 12, 3)).astype(np.float32)
    module = ReconstructiveNetwork((2, 3, 4))
    variables = moved(module, x)
    found = jax.jit(lambda v: module.apply(v, x, train=False))(variables)
    net = Numpy(variables)
    for image, one in zip(x.astype(np.float64), found):
        y = net.block(image, "encoder0")
        y = net.block(net.halved(y), "encoder1")
        y = net.block(net.halved(y), "encoder2")
        y = net.block(net.doubled(y), "decoder1")
        y = net.block(net.doubled(y), "decoder0")
        expected = net.plain(y, net.params["output"])
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


def test_discrimination_layer_by_layer():
    x = np.random.default_rng(1).uniform(0, 1, (2, 8, 4, 6)).astype(np.float32)
    module = DiscriminativeNetwork((2, 3, 4))
    variables = moved(module, x)
    found = jax.jit(lambda v: module.apply(v, x, train=False))(variables)
    net = Numpy(variables)
    for image, one in zip(x.astype(np.float64), found):
        first = net.block(image, "encoder0")
        second = net.block(net.halved(first), "encoder1")
        y = net.block(net.halved(second), "encoder2")
        for level, skip in ((1, second), (0, first)):
            y = net.block(net.doubled(y), f"up{level}")
            y = net.block(np.concatenate([y, skip], -1), f"decoder{level}")
        expected = net.plain(y, net.params["output"])
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)
