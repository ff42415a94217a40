"""Convolutions by the rule against XLA's and, transposed ones, against their definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from imvad_jax.ops import convolution, convolution_cpu, convolution_rule, processor
from imvad_jax.ops.convolution import by_winograd, convolve, convolve_depthwise, convolve_transposed
from imvad_jax.training.parallel import Parallel
from tests.ops.convolved import assert_close, normal, plain, with_gradients

NONE, ONE, TWO = (((border, border),) * 2 for border in range(3))
# Window, strides, padding, rows and columns.
CONVOLUTIONS = [
    ((1, 1), (1, 1), NONE, (5, 4)),
    ((1, 1), (2, 2), NONE, (7, 6)),  # the last column is left out
    ((1, 1), (2, 3), NONE, (6, 9)),
    ((1, 1), (2, 2), ONE, (5, 5)),  # zeros around: no product
    ((3, 3), (1, 1), ONE, (9, 7)),
    ((3, 3), (1, 1), NONE, (5, 6)),
    ((3, 3), (1, 1), ((2, 0), (0, 3)), (4, 5)),
    ((3, 3), (2, 2), ONE, (8, 7)),
    ((3, 3), (2, 2), ((0, 1), (0, 1)), (8, 8)),
    ((7, 7), (2, 2), ((3, 3), (3, 3)), (11, 10)),
    ((4, 2), (3, 1), ((1, 2), (0, 1)), (10, 3)),
    ((2, 2), (3, 3), NONE, (8, 9)),  # rows and columns between the windows
    ((5, 3), (1, 2), ((2, 2), (1, 1)), (1, 6)),  # one row
    ((4, 4), (4, 4), NONE, (8, 12)),
    ((1, 5), (2, 1), ((0, 0), (4, 4)), (5, 2)),
    ((5, 4), (2, 3), NONE, (5, 4)),  # as large as the map
]
GEOMETRIES = [((4, 4), 2, 1), ((3, 3), 1, 1), ((5, 2), 1, 0), ((3, 3), 2, 1), ((2, 2), 3, 0)]
PAYS = ((1, 64, 64, 32), (3, 3, 32, 32))  # a map and a kernel that go by Winograd


def ours(strides, padding):
    """As `plain`, by the rule; a new function, which nothing has traced before."""
    return lambda x, kernel: convolve(x, kernel, strides, padding)


def case(batch, inputs, outputs, window, strides, padding, sides, dtype=np.float64):
    """A map, a kernel, and what the result is weighted with."""
    x = normal(batch, *sides, inputs, dtype=dtype)
    kernel = normal(*window, inputs, outputs, seed=1, dtype=dtype)
    shape = jax.eval_shape(plain(strides, padding), x, kernel).shape
    return x, kernel, normal(*shape, seed=2, dtype=dtype)


@pytest.fixture(autouse=True)
def none_too_small(monkeypatch):
    monkeypatch.setattr(convolution_rule, "LEAST_WORK", 0)


@pytest.fixture
def always_winograd(monkeypatch):
    monkeypatch.setattr(convolution_rule, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(convolution_rule, "LEAST_PRODUCTS", 0)
    monkeypatch.setattr(convolution_rule, "LEAST_TILES", {3: 1, 5: 1})
    monkeypatch.setattr(convolution_rule, "MOST_PADDED", 100)


@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_results_and_gradients_are_those_of_xla(geometry):
    with jax.enable_x64(True):
        arrays = case(3, 2, 4, *geometry)
        _, strides, padding, _ = geometry
        expected = with_gradients(plain(strides, padding))(*arrays)
        assert_close(with_gradients(ours(strides, padding))(*arrays), expected, 1e-13)


@pytest.mark.parametrize("geometry", [g for g in CONVOLUTIONS if g[1] == (1, 1)])
@pytest.mark.parametrize("channels", [(5, 3), (3, 5)])  # taps of the gradient, or of the map
def test_gradients_of_a_kernel_by_the_taps_of_fewer_channels(geometry, channels):
    window, strides, padding, _ = geometry
    how = convolution_rule.How(strides, padding, None, "auto")
    with jax.enable_x64(True):
        x, kernel, gradient = case(2, *channels, *geometry)
        found = jax.jit(convolution_cpu._by_windows, static_argnums=(1, 3))
        expected = convolution_cpu.xla_to_kernel(x, kernel, gradient, how)
        found = np.asarray(found(x, (*window, *channels), gradient, how))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("positions", [40, 7])  # three images of 4x3, and two lines of them
def test_gradients_of_a_kernel_some_positions_at_a_time(batch, positions, monkeypatch):
    monkeypatch.setattr(convolution_cpu, "VALUES_PER_STEP", 18 * positions)
    geometry = ((3, 3), (2, 2), ONE, (7, 6))
    with jax.enable_x64(True):
        arrays = case(batch, 2, 3, *geometry)
        expected = with_gradients(plain((2, 2), ONE))(*arrays)
        assert_close(with_gradients(ours((2, 2), ONE))(*arrays), expected, 1e-13)


@pytest.mark.parametrize("window, padding", [((3, 3), ONE), ((5, 5), TWO)])
def test_a_convolution_by_winograd(window, padding, always_winograd):
    with jax.enable_x64(True):
        arrays = case(2, 3, 5, window, (1, 1), padding, (9, 10))
        found = with_gradients(ours((1, 1), padding))
        # No convolution is left for the processor.
        assert "stablehlo.convolution" not in found.lower(*arrays).as_text()
        assert_close(found(*arrays), with_gradients(plain((1, 1), padding))(*arrays), 1e-13)


@pytest.mark.parametrize("kernels", [None, 0])
def test_under_vmap(kernels, always_winograd):
    with jax.enable_x64(True):
        for window, strides, padding in (((3, 3), (1, 1), ONE), ((3, 3), (2, 2), ONE),
                                         ((1, 1), (2, 2), NONE)):  # fmt: skip
            arrays = [case(2, 3, 2, window, strides, padding, (5, 7)) for _ in range(3)]
            xs, ks, weights = (np.stack(some) * np.arange(1, 4).reshape(3, 1, 1, 1, 1)
                               for some in zip(*arrays))  # fmt: skip
            given = (xs, ks if kernels == 0 else ks[0], weights)
            axes = (0, kernels, 0)
            found = jax.vmap(with_gradients(ours(strides, padding)), axes)(*given)
            expected = jax.vmap(with_gradients(plain(strides, padding)), axes)(*given)
            assert_close(found, expected, 1e-13)


def test_on_two_devices(always_winograd):
    two = Parallel(jax.local_devices()[:2])
    for window, strides, padding in (((3, 3), (1, 1), ONE), ((5, 5), (2, 2), ONE)):
        x, kernel, weight = case(4, 3, 2, window, strides, padding, (6, 7), dtype=np.float32)
        step = with_gradients(ours(strides, padding))
        step = two.compile(step, split=(True, False, True))
        out, to_x, to_kernel = step(two.split(x), kernel, two.split(weight))
        expected = with_gradients(plain(strides, padding))(x, kernel, weight)
        found = two.join(out), two.join(to_x), np.asarray(to_kernel).sum(0)
        assert_close(found, expected, 1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_rule_depends_on_an_image_alone(batch):
    """What is just taken, and what is just not, whatever the batch is."""

    def taken(height, width, inputs, outputs, side=3):
        shape, kernel = (batch, height, width, inputs), (side, side, inputs, outputs)
        return by_winograd(shape, kernel, jnp.float32, (1, 1), ONE if side == 3 else TWO)

    assert taken(32, 32, 32, 32) and not taken(30, 32, 32, 32)  # products
    assert taken(4, 4, 256, 256) and not taken(4, 3, 256, 256)
    assert not taken(256, 256, 16, 64) and not taken(256, 256, 64, 16)  # channels
    assert taken(9, 12, 512, 512) and not taken(5, 5, 512, 512)  # zeros up to whole tiles
    assert taken(8, 8, 64, 128, 5) and not taken(8, 8, 32, 128, 5)  # products
    assert taken(8, 8, 512, 512, 5) and not taken(4, 12, 512, 512, 5)  # tiles


def test_what_winograd_does_not_take():
    shape, kernel = PAYS
    assert by_winograd(shape, kernel, jnp.float32, (1, 1), ONE)
    assert not by_winograd(shape, kernel, jnp.float32, (2, 2), ONE)
    assert not by_winograd(shape, kernel, jnp.float32, (1, 1), NONE)
    assert not by_winograd(shape, (5, 5, 32, 32), jnp.float32, (1, 1), ONE)
    assert not by_winograd(shape, (7, 7, 32, 32), jnp.float32, (1, 1), ((3, 3), (3, 3)))
    assert not by_winograd(shape, (3, 5, 32, 32), jnp.float32, (1, 1), ((1, 1), (2, 2)))
    with convolution.forms("xla"):
        assert not by_winograd(shape, kernel, jnp.float32, (1, 1), ONE)
    assert by_winograd(shape, kernel, jnp.float32, (1, 1), ONE)


@pytest.mark.parametrize(
    "side, window, stride, inputs, outputs, forms, wide",
    [
        (32, 1, 2, 64, 128, "product product product", True),
        (32, 3, 1, 128, 128, "winograd winograd winograd", True),
        (128, 3, 1, 16, 16, "narrow phases narrow", True),
        (128, 3, 1, 32, 16, "xla phases narrow", True),
        (128, 3, 1, 3, 32, "xla phases xla", True),
        (4, 5, 1, 64, 256, "taps phases windows", True),
        (64, 3, 2, 64, 128, "xla phases windows", True),
        (16, 5, 1, 64, 64, "winograd winograd winograd", True),
        (16, 5, 1, 16, 64, "xla xla windows", True),
        (16, 3, 1, 16, 16, "xla xla xla", True),
        (128, 3, 1, 16, 16, "xla phases windows", False),
        (128, 3, 1, 3, 32, "xla phases windows", False),
        (32, 3, 1, 16, 16, "xla xla windows", False),
        (3, 3, 1, 64, 64, "xla xla xla", False),
    ],
)
def test_the_form_of_each_direction(
    side, window, stride, inputs, outputs, forms, wide, monkeypatch
):
    """Where nothing is too small (`none_too_small`), on a processor with AVX-512 or without."""
    monkeypatch.setattr(processor, "has_wide_vectors", lambda: wide)
    border = (window - 1) // 2
    how = convolution_rule.How((stride,) * 2, ((border,) * 2,) * 2, None, "auto")
    shape, kernel = (1, side, side, inputs), (window, window, inputs, outputs)
    directions = (convolution_rule.forward, convolution_rule.to_input, convolution_rule.to_kernel)
    found = [choose(shape, kernel, jnp.float32, how) for choose in directions]
    assert found == forms.split()
    plain = convolution_rule.with_form(how, shape, kernel, jnp.float32).form == "xla"
    assert plain == (set(found) == {"xla"})


def test_a_kernel_as_large_as_the_map_is_one_product_where_it_has_no_border():
    def forms(side, padding):
        how = convolution_rule.How((1, 1), padding, None, "auto")
        given = (1, 8, side, 32), (8, 8, 32, 20), jnp.float32, how
        choose = convolution_rule
        return {f(*given) for f in (choose.forward, choose.to_input, choose.to_kernel)}

    assert forms(8, NONE) == {"whole"}
    assert "whole" not in forms(9, NONE) | forms(8, ONE)


def test_what_is_too_small_is_left_to_xla(monkeypatch):
    def chooses(least, window):
        monkeypatch.setattr(convolution_rule, "LEAST_WORK", least)
        padding = ONE if window == (9, 9) else NONE
        x, kernel, _ = case(1, 2, 5, window, (2, 2), padding, (7, 9), dtype=np.float32)
        return "platform_index" in str(jax.make_jaxpr(ours((2, 2), padding))(x, kernel))

    work = 3 * 4 * 9 * 2 * 5  # of the outputs of one image
    monkeypatch.setattr(convolution_rule, "LEAST_SLOW_WORK", 1e12)
    assert chooses(work, (3, 3)) and not chooses(work + 1, (3, 3))
    assert chooses(work + 1, (1, 1))  # always a product
    assert chooses(work + 1, (9, 9))  # larger than the map: XLA has scalar loops only
    monkeypatch.setattr(convolution_rule, "LEAST_SLOW_WORK", work)
    assert chooses(work + 1, (3, 3))  # the gradient of a kernel with more outputs than inputs


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_are_left_to_xla(dtype):
    shape, kernel = PAYS
    assert not by_winograd(shape, kernel, dtype, (1, 1), ONE)
    x, kernel = jnp.asarray(normal(*shape), dtype), jnp.asarray(normal(*kernel, seed=1), dtype)
    found = jax.jit(ours((1, 1), ONE))(x, kernel)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, jax.jit(plain((1, 1), ONE))(x, kernel))


@pytest.mark.parametrize("geometry", [CONVOLUTIONS[1], CONVOLUTIONS[4], CONVOLUTIONS[7]])
def test_the_form_xla_gives_its_bits(geometry, always_winograd):
    _, strides, padding, _ = geometry
    arrays = case(3, 5, 4, *geometry, dtype=np.float32)
    expected = with_gradients(plain(strides, padding))(*arrays)
    with convolution.forms("xla"):
        found = with_gradients(ours(strides, padding))(*arrays)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    # By the rule they are others: were they not, nothing would be tested here.
    other = with_gradients(ours(strides, padding))(*arrays)
    assert any((np.asarray(a) != b).any() for a, b in zip(other, expected, strict=True))


def operations(lowered):
    """How many convolutions and products a program has."""
    text = lowered.as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_one_trace_is_lowered_for_every_platform(platform):
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in PAYS)
    forward = jax.jit(ours((1, 1), ONE)).trace(x, kernel)
    both = with_gradients(ours((1, 1), ONE)).trace(x, kernel, x)
    for traced, convolutions in ((forward, 1), (both, 3)):
        assert operations(traced.lower(lowering_platforms=(platform,))) == (convolutions, 0)
        here, products = operations(traced.lower(lowering_platforms=("cpu",)))
        assert here == 0 and products > 0
    # Together they are one program, which chooses where it runs.
    found = export.export(jax.jit(ours((1, 1), ONE)), platforms=("cpu", platform))(x, kernel)
    text = found.mlir_module()
    assert "stablehlo.convolution" in text and "stablehlo.dot_general" in text


@pytest.mark.parametrize("geometry", [*CONVOLUTIONS, ((3, 3), (1, 1), ONE, (64, 64))])
def test_every_form_is_exported_for_any_batch_size(geometry):
    window, strides, padding, sides = geometry
    (batch,) = export.symbolic_shape("batch")
    x = jax.ShapeDtypeStruct((batch, *sides, 32), jnp.float32)
    kernel = jax.ShapeDtypeStruct((*window, 32, 32), jnp.float32)
    found = export.export(jax.jit(ours(strides, padding)))(x, kernel)
    assert found.out_avals[0].shape[0] == batch


def depthwise(strides, padding):
    return lambda x, kernel: convolve_depthwise(x, kernel, strides, padding)


def depthwise_case(geometry, dtype=np.float64):
    """A map of three channels, their kernels, and what the result is weighted with."""
    window, strides, padding, sides = geometry
    x, kernel, weight = case(2, 1, 3, window, strides, padding, sides, dtype=dtype)
    return np.repeat(x, 3, -1) * np.arange(1, 4, dtype=dtype), kernel, weight


@pytest.mark.parametrize("geometry", CONVOLUTIONS)
def test_each_channel_has_a_kernel_of_its_own(geometry):
    _, strides, padding, _ = geometry
    with jax.enable_x64(True):
        x, kernel, weight = depthwise_case(geometry)
        found = with_gradients(depthwise(strides, padding))(x, kernel, weight)
        each = with_gradients(plain(strides, padding))
        channels = [each(x[..., i : i + 1], kernel[..., i : i + 1], weight[..., i : i + 1])
                    for i in range(3)]  # fmt: skip
        expected = [np.concatenate(parts, -1) for parts in zip(*channels, strict=True)]
        assert_close(found, expected, 1e-13)


def test_depthwise_convolutions_leave_none_for_the_processor():
    arrays = depthwise_case(((5, 5), (2, 2), ((1, 2), (1, 2)), (8, 8)), np.float32)
    found = with_gradients(depthwise((2, 2), ((1, 2), (1, 2))))
    assert "stablehlo.convolution" not in found.lower(*arrays).as_text()
    with convolution.forms("xla"):
        usual = with_gradients(depthwise((2, 2), ((1, 2), (1, 2))))
        assert "stablehlo.convolution" in usual.lower(*arrays).as_text()
        expected = usual(*arrays)
    assert_close(found(*arrays), expected, 1e-5)
    narrow = [array.astype(jnp.bfloat16) for array in arrays]  # would add up less exactly
    assert "stablehlo.convolution" in found.lower(*narrow).as_text()


def scattered(x, kernel, stride, padding):
    """PyTorch's ConvTranspose2d of `[B, H, W, C]`: pixel by pixel, then the border is cut off."""
    batch, rows, columns, _ = x.shape
    high, wide, _, features = kernel.shape
    out = np.zeros((batch, stride * (rows - 1) + high, stride * (columns - 1) + wide, features))
    for i in range(rows):
        for j in range(columns):
            window = out[:, stride * i : stride * i + high, stride * j : stride * j + wide]
            window += np.einsum("bc,uvcd->buvd", x[:, i, j], kernel)
    stop = [side - padding for side in out.shape[1:3]]
    return out[:, padding : stop[0], padding : stop[1]]


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("window, stride, padding", GEOMETRIES)
def test_every_pixel_adds_its_window(window, stride, padding, form):
    x, kernel = normal(2, 3, 4, 3), normal(*window, 3, 5, seed=1)
    with convolution.forms(form):
        found = convolve_transposed(
            jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride, padding
        )
    np.testing.assert_allclose(found, scattered(x, kernel, stride, padding), atol=1e-5)


def test_window_4_stride_2_doubles_and_a_single_pixel_becomes_its_window():
    double = convolve_transposed(jnp.ones((1, 7, 5, 2)), jnp.ones((4, 4, 2, 3)), 2, 1)
    assert double.shape == (1, 14, 10, 3)
    kernel = normal(8, 8, 2, 3)
    found = convolve_transposed(
        jnp.asarray([[[[2.0, -1.0]]]]), jnp.asarray(kernel, jnp.float32), 1, 0
    )
    np.testing.assert_allclose(found[0], 2 * kernel[:, :, 0] - kernel[:, :, 1], atol=1e-5)


def test_exports_read_the_layout_of_a_transposed_convolution():
    x, kernel = jnp.ones((1, 3, 4, 2)), jnp.ones((4, 4, 2, 3))
    with convolution.forms("xla"):
        program = jax.jit(convolve_transposed, static_argnums=(2, 3)).lower(x, kernel, 2, 1)
    assert "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]" in program.as_text()


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("window, stride, padding", GEOMETRIES)
def test_gradients(window, stride, padding, form):
    x, kernel = normal(1, 2, 3, 2), normal(*window, 2, 2, seed=1)
    weight = normal(*scattered(x, kernel, stride, padding).shape, seed=2)

    def loss(x, kernel):
        with convolution.forms(form):
            return jnp.sum(weight * convolve_transposed(x, kernel, stride, padding))

    by_x, by_kernel = jax.grad(loss, (0, 1))(
        jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)
    )
    # It is linear in either: the derivative by one number is the value at its unit vector.
    for found, array, position in ((by_x, x, 0), (by_kernel, kernel, 1)):
        expected = np.zeros_like(array)
        for index in np.ndindex(*array.shape):
            unit = np.zeros_like(array)
            unit[index] = 1
            pair = (unit, kernel) if position == 0 else (x, unit)
            expected[index] = (weight * scattered(*pair, stride, padding)).sum()
        np.testing.assert_allclose(found, expected, atol=1e-4)
