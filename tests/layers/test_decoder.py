"""The blocks of reverse distillation against plain numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.backbones.resnet import BasicBlock, BottleneckBlock
from imvad_jax.layers.decoder import OneClassEmbedding, ReverseDecoder, UpConv

KEY = jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def convolved(x, kernel, stride):
    """Convolution `[h, w, C]` of an odd window, zeros around: window by window, float64."""
    side = kernel.shape[0]
    pad = side // 2
    padded = np.pad(x, ((pad, pad), (pad, pad), (0, 0)))
    rows, columns = (-(-n // stride) for n in x.shape[:2])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = padded[i * stride :, j * stride :][:side, :side]
            out[i, j] = np.einsum("hwc,hwcd->d", window, kernel)
    return out


def enlarged(x, kernel):
    """Transposed convolution by scattering `[h, w, C]` into 2x2 windows; kernel `[2, 2, C, D]`."""
    out = np.zeros((2 * x.shape[0], 2 * x.shape[1], kernel.shape[-1]))
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += np.einsum("c,hwcd->hwd", x[i, j], kernel)
    return out


def normalised(x):
    """A batch norm of mean 0, variance 1, scale 1 and shift 0."""
    return x / np.sqrt(1 + 1e-5)


def relu(x):
    return np.maximum(x, 0)


def kernel_of(parameters, up=False):
    kernel = np.asarray(parameters["conv"]["kernel"] if up else parameters["kernel"], np.float64)
    if up:  # [1, 1, C, 4 D], windows first
        channels = kernel.shape[2]
        kernel = kernel.reshape(channels, 2, 2, -1).transpose(1, 2, 0, 3)
    return kernel


def test_up_convolution_is_a_transposed_convolution_of_window_and_stride_2():
    x = normal(2, 3, 5, 4)
    module = UpConv(6)
    variables = module.init(KEY, jnp.asarray(x, jnp.float32))
    found = module.apply(variables, jnp.asarray(x, jnp.float32))
    kernel = kernel_of(variables["params"], up=True)
    np.testing.assert_allclose(found, [enlarged(image, kernel) for image in x], atol=1e-5)


def test_up_convolution_starts_as_pytorchs():
    kernel = UpConv(25).init(KEY, jnp.zeros((1, 1, 1, 64)))["params"]["conv"]["kernel"]
    bound = 1 / np.sqrt(4 * 25)
    assert 0.98 * bound < float(np.abs(kernel).max()) <= bound
    np.testing.assert_allclose(np.asarray(kernel).std(), bound / np.sqrt(3), rtol=0.03)


def test_other_convolutions_start_from_kaimings_normal_by_their_outputs():
    """As the official code starts them; the two 3x3 of a basic block would not tell fan in."""
    maps = [jnp.zeros((1, 4, 4, 16)), jnp.zeros((1, 2, 2, 64))]
    embedding = OneClassEmbedding(BasicBlock, filters=48, depth=1)
    decoder = ReverseDecoder(BottleneckBlock, filters=(32,), depths=(2,))

    @jax.jit
    def init(key):
        made = embedding.init(key, maps, train=False), decoder.init(key, maps[1], train=False)
        return [variables["params"] for variables in made]

    checked = 0
    for path, leaf in jax.tree.leaves_with_path(init(KEY)):
        if path[-1].key != "kernel" or path[-2].key == "conv":  # that of an `UpConv`
            continue
        height, width, inputs, outputs = leaf.shape
        expected = np.sqrt(2 / (height * width * outputs))
        values = np.asarray(leaf)
        spread = expected / np.sqrt(2 * values.size)  # of the standard deviation of so many
        assert abs(values.std() - expected) < 5 * spread, path
        assert np.abs(values).max() > 3 * expected  # not truncated
        checked += inputs != outputs
    assert checked >= 5


def test_decoder_block_by_block():
    x = normal(1, 2, 3, 5)
    module = ReverseDecoder(BasicBlock, filters=(4, 3), depths=(2, 1))
    variables = module.init(KEY, jnp.asarray(x, jnp.float32), train=False)
    found = module.apply(variables, jnp.asarray(x, jnp.float32), train=False)
    parameters = variables["params"]

    def first(y, p):
        inner = relu(normalised(enlarged(y, kernel_of(p["conv1"], up=True))))
        inner = normalised(convolved(inner, kernel_of(p["conv2"]), 1))
        return inner + normalised(enlarged(y, kernel_of(p["downsample_0"], up=True)))

    def later(y, p):
        inner = relu(normalised(convolved(y, kernel_of(p["conv1"]), 1)))
        return y + normalised(convolved(inner, kernel_of(p["conv2"]), 1))

    y = relu(first(x[0], parameters["stage0_0"]))
    deep = later(y, parameters["stage0_1"])
    shallow = first(relu(deep), parameters["stage1_0"])
    np.testing.assert_allclose(found[0][0], deep, atol=1e-4)
    np.testing.assert_allclose(found[1][0], shallow, atol=1e-4)
    assert shallow.min() < 0  # the sum before the last ReLU


def test_embedding_fuses_all_maps_and_halves_the_deepest():
    maps = [normal(1, 8, 12, 3), normal(1, 4, 6, 4), normal(1, 2, 3, 5)]
    single = [jnp.asarray(x, jnp.float32) for x in maps]
    module = OneClassEmbedding(BasicBlock, filters=6, depth=2)
    variables = module.init(KEY, single, train=False)
    found = module.apply(variables, single, train=False)
    parameters = variables["params"]

    def fuse(x, name):
        return relu(normalised(convolved(x, kernel_of(parameters[f"{name}_conv"]), 2)))

    shallow = fuse(fuse(maps[0][0], "fuse0_0"), "fuse0_1")
    y = np.concatenate([shallow, fuse(maps[1][0], "fuse1_0"), maps[2][0]], -1)
    assert y.shape == (2, 3, 15)
    for name, stride in (("block0", 2), ("block1", 1)):
        p = parameters[name]
        inner = relu(normalised(convolved(y, kernel_of(p["conv1"]), stride)))
        inner = normalised(convolved(inner, kernel_of(p["conv2"]), 1))
        shortcut = normalised(convolved(y, kernel_of(p["downsample_0"]), 2)) if stride == 2 else y
        y = relu(inner + shortcut)
    np.testing.assert_allclose(found[0], y, atol=1e-4)


@pytest.mark.parametrize(
    "block, depth, depths, fusion, embedding, decoder",
    [
        # Counted by hand from the official modules, the unused conv4 left out.
        (BasicBlock, 2, (2, 2, 2), 664_832, 11_015_168, 3_703_168),
        (partial(BottleneckBlock, widen=2), 3, (3, 4, 6), 10_621_952, 48_263_168, 24_917_504),
    ],
)
def test_sizes_of_the_official_modules(block, depth, depths, fusion, embedding, decoder):
    wide = getattr(block, "func", block).expansion
    shapes = [(1, 64, 64, 64 * wide), (1, 32, 32, 128 * wide), (1, 16, 16, 256 * wide)]
    maps = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    first = OneClassEmbedding(block, 512, depth)
    second = ReverseDecoder(block, (256, 128, 64), depths)

    def init(key, maps):
        embedded, variables = first.init_with_output(key, maps, train=False)
        restored, others = second.init_with_output(key, embedded, train=False)
        return embedded, restored, variables["params"], others["params"]

    embedded, restored, one, two = jax.eval_shape(init, KEY, maps)
    assert embedded.shape == (1, 8, 8, 512 * wide)
    assert [x.shape for x in restored[::-1]] == shapes

    def count(tree):
        return sum(leaf.size for leaf in jax.tree.leaves(tree))

    fused = sum(count(tree) for name, tree in one.items() if name.startswith("fuse"))
    assert (fused, count(one) - fused, count(two)) == (fusion, embedding, decoder)


def test_batch_norms_follow_the_batch_in_training_and_the_running_values_after_it():
    x = jnp.asarray(normal(4, 2, 2, 5), jnp.float32)
    module = ReverseDecoder(BasicBlock, filters=(4,), depths=(1,))
    variables = module.init(KEY, x, train=False)
    _, changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
    kernel = kernel_of(variables["params"]["stage0_0"]["conv1"], up=True)
    inner = np.stack([enlarged(image, kernel) for image in np.asarray(x, np.float64)])
    found = changed["batch_stats"]["stage0_0"]["bn1"]
    np.testing.assert_allclose(found["mean"], 0.1 * inner.mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(found["var"], 0.9 + 0.1 * inner.var((0, 1, 2), ddof=1), rtol=1e-4)
