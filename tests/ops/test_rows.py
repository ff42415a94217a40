"""Rows split over devices: the same maps as of whole images, or refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops import convolution, patches, pooling, resample, rows, winograd
from imvad_jax.ops import convolution_rule as rule
from imvad_jax.ops.collectives import AXIS
from tests.ops.convolved import normal


def sharing(function, devices):
    """`function` of `[devices, B, H, W, C]`, the same images a device, each computing its rows."""

    def step(x):
        with rows.shared():
            return rows.by_rows(function, x)

    return jax.pmap(step, axis_name=AXIS, devices=jax.local_devices()[:devices])


def split(function, x, devices):
    """`function` of `x`, each device computing its rows; one result a device, all of them whole."""
    return np.asarray(sharing(function, devices)(np.broadcast_to(x, (devices, *x.shape))))


def assert_same(function, x, devices, tolerance=1e-6):
    expected = np.asarray(jax.jit(function)(x))
    found = split(function, x, devices)
    assert found.shape == (devices, *expected.shape)
    for one in found:
        np.testing.assert_allclose(one, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def convolving(size, stride, padding, depthwise=False, channels=4):
    kernel = normal(size, size, 1 if depthwise else channels, channels, dtype=np.float32)
    run = convolution.convolve_depthwise if depthwise else convolution.convolve
    return partial(run, kernel=kernel, strides=(stride, stride), padding=(padding, padding))


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize(
    "size, stride, padding",
    [
        (3, 1, (1, 1)),
        (3, 2, (1, 1)),
        (7, 2, (3, 3)),
        (1, 1, (0, 0)),
        (1, 2, (0, 0)),
        (3, 2, (0, 1)),  # SAME of even sides
        (5, 2, (1, 2)),
        (5, 1, (2, 2)),
    ],
)
def test_convolutions(size, stride, padding, devices):
    x = normal(2, 16, 10, 4, dtype=np.float32)
    assert_same(convolving(size, stride, padding), x, devices)


@pytest.mark.parametrize("size, stride, exchanges", [(3, 1, 1), (7, 2, 1), (1, 2, 0)])
def test_devices_wait_for_each_other_once_a_convolution(size, stride, exchanges):
    step = sharing(convolving(size, stride, (size // 2, size // 2)), 2)
    program = str(jax.make_jaxpr(step)(np.zeros((2, 1, 16, 8, 4), np.float32)))
    assert program.count("all_gather[") == exchanges + 1  # and once for the rows of the result
    assert "ppermute" not in program


def test_convolutions_with_joined_outputs():
    x, kernel = normal(1, 128, 64, 4, dtype=np.float32), (3, 3, 4, 4)
    own = rule.How((1, 1), ((0, 0), (1, 1)), None, "auto")  # rows have their border already
    assert rule.forward((1, 66, 64, 4), kernel, x.dtype, own) == "narrow"
    assert_same(convolving(3, 1, (1, 1)), x, 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_convolutions(stride):
    x = normal(2, 16, 10, 4, dtype=np.float32)
    assert_same(convolving(5, stride, (2, 2), depthwise=True), x, 2)


# 8, 12 and 6 rows per device: the last cuts a tile.
@pytest.mark.parametrize("height", [16, 24, 12])
@pytest.mark.parametrize("side", [3, 5])
def test_winograd_with_its_kernel_ready(height, side):
    x = normal(2, height, 9, 4, dtype=np.float32)
    kernel = normal(side, side, 4, 5, dtype=np.float32)
    ready = winograd.transform_kernel(kernel)
    assert_same(lambda x: convolution.by_transformed(x, ready), x, 2, 1e-5)


@pytest.mark.parametrize("devices", [2, 4])
def test_winograd_whose_outputs_devices_share(devices):
    x, kernel = normal(2, 8, 9, 4, dtype=np.float32), normal(3, 3, 4, 12, dtype=np.float32)
    ready = winograd.transform_kernel(kernel)
    parts = jnp.stack(jnp.split(winograd.transform_outputs(kernel), devices, axis=1))

    def function(x):
        if rows.count() == 1:
            return convolution.by_transformed(x, ready)
        return convolution.by_shared_outputs(x, parts[jax.lax.axis_index(AXIS)])

    assert_same(function, x, devices, 1e-5)


def test_the_rows_of_all_devices_decide_on_winograd():
    asked, kernel = [], (3, 3, 32, 32)

    def ask(x):
        asked.append(convolution.by_winograd(x.shape, kernel, x.dtype, (1, 1), ((1, 1), (1, 1))))
        return x

    x = np.zeros((1, 32, 32, 32), np.float32)
    split(ask, x, 4)
    assert asked == [True]
    assert not convolution.by_winograd((1, 8, 32, 32), kernel, x.dtype, (1, 1), ((1, 1), (1, 1)))


@pytest.mark.parametrize("devices", [2, 4])
def test_the_largest_of_3x3(devices):
    x = np.maximum(normal(2, 16, 9, 3, dtype=np.float32), 0)
    assert_same(pooling.max_pool_3x3_of_positive, x, devices, 0)


@pytest.mark.parametrize("channels, outputs", [((8, 16), 16), ((6, 10), 14)])  # in groups, dense
def test_patches(channels, outputs):
    for kernel in patches.patch_kernels(channels, outputs):
        x = normal(2, 8, 5, kernel.shape[2], dtype=np.float32)
        assert_same(lambda x, kernel=kernel: patches.aggregate_patches(x, kernel), x, 2)


@pytest.mark.parametrize("channels", [3, 4])  # less than the width and not less
@pytest.mark.parametrize("resize", [resample.resize_bilinear, resample.resize_nearest])
def test_resizing(resize, channels):
    x = normal(2, 8, 4, channels, dtype=np.float32)
    assert_same(lambda x: resize(x, (2 * x.shape[1], 8)), x, 4)


def test_halving():
    x = normal(2, 8, 4, 3, dtype=np.float32)
    assert_same(lambda x: resample.resize_bilinear(x, (x.shape[1] // 2, 2)), x, 4)


def test_means_and_own_rows_of_matrices():
    x, matrix = normal(2, 8, 4, 3, dtype=np.float32), normal(8, 2, dtype=np.float32)

    def function(x):
        return rows.mean_of_positions(x) + x * rows.own_rows(jnp.asarray(matrix))[:, :1, None]

    assert_same(function, x, 4)


@pytest.mark.parametrize(
    "function, height",
    [
        (lambda x: x, 9),  # the image
        (convolving(3, 2, (1, 1)), 10),  # five rows per device, in steps of two
        (convolving(3, 1, (0, 0)), 16),  # fewer rows come out
        (convolving(7, 1, (3, 3)), 4),  # reaches beyond the neighbour
        (pooling.max_pool_3x3_of_positive, 10),
        (lambda x: resample.resize_nearest(x, (3, 10)), 4),
    ],
)
def test_refused_where_rows_do_not_split(function, height):
    with pytest.raises(rows.Indivisible):
        split(function, normal(1, height, 10, 4, dtype=np.float32), 2)


def test_refused_where_nothing_is_computed_by_rows():
    def step(x):
        with rows.shared():
            return x

    with pytest.raises(rows.Indivisible, match="no part"):
        jax.eval_shape(jax.pmap(step, axis_name=AXIS), jax.ShapeDtypeStruct((2, 4), np.float32))


def test_shapes_looked_up_amid_a_split_are_those_of_whole_images():
    counts = []

    def function(x):
        counts.append(rows.count())
        with rows.whole():
            counts.append(rows.count())
        return x

    split(function, normal(1, 4, 2, 1, dtype=np.float32), 2)
    assert counts == [2, 1] and rows.count() == 1
