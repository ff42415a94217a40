"""Convolutions by Winograd against XLA's: exact in float64, and how far off in float32."""

import jax
import numpy as np
import pytest

from imvad_jax.ops import winograd
from tests.ops.convolved import assert_close, normal, plain, with_gradients

SIDES = [3, 5]  # of the kernel
# Batch, rows, columns, channels of the map and of the result.
SHAPES = [
    (1, 1, 9, 2, 3),  # one row
    (2, 7, 1, 3, 2),  # one column
    (1, 4, 8, 1, 5),  # whole tiles
    (3, 5, 6, 4, 4),
    (2, 13, 11, 3, 2),
]
# With four tiles a step.
CUT = {
    (1, 9, 13, 2, 3): (1, 3, 1),  # three blocks of one row of tiles
    (2, 17, 5, 3, 2): (1, 2, 3),  # two blocks of three rows, which are more than there are
    (4, 4, 4, 2, 2): (4, 1, 1),  # four images a step
    (8, 5, 3, 2, 3): (4, 1, 2),  # two tiles an image, but four images: two would be unrolled
    (6, 5, 4, 3, 2): (1, 1, 2),  # neither two nor three images
    (5, 8, 4, 2, 2): (1, 1, 2),
}


def same(side):
    """The convolution that keeps the size, as XLA has it."""
    return plain((1, 1), ((side // 2,) * 2,) * 2)


def by_winograd(x, kernel, weight):
    """The result and both gradients; compiled for the case alone, whatever was traced before."""
    transform, convolve, to_input, to_kernel = (
        function.__wrapped__
        for function in (
            winograd.transform_kernel,
            winograd.convolve,
            winograd.input_gradient,
            winograd.kernel_gradient,
        )
    )

    def run(x, kernel, weight):
        out = convolve(x, transform(kernel))
        return out, to_input(weight, kernel), to_kernel(x, weight, len(kernel))

    return jax.jit(run)(x, kernel, weight)


def case(side, batch, height, width, inputs, outputs, dtype=np.float64):
    """A map, a kernel, and what its result is weighted with."""
    sides = batch, height, width
    shapes = (*sides, inputs), (side, side, inputs, outputs), (*sides, outputs)
    return [normal(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_are_those_of_a_convolution(shape, side):
    with jax.enable_x64(True):
        arrays = case(side, *shape)
        assert_close(by_winograd(*arrays), with_gradients(same(side))(*arrays), 1e-13)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", SHAPES)
def test_with_the_kernel_on_the_left(shape, side):
    with jax.enable_x64(True):
        x, kernel, _ = case(side, *shape)
        found = winograd.convolve_outputs(x, winograd.transform_outputs(kernel))
        expected = np.asarray(jax.jit(same(side))(x, kernel))
        assert found.shape == expected.shape and found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


def test_the_kernel_stays_on_the_left():
    # Few tiles: XLA would exchange the sides of the product, and rearrange the kernel first.
    x, kernel = np.zeros((1, 16, 16, 256), np.float32), np.zeros((36, 128, 256), np.float32)
    compiled = winograd.convolve_outputs.lower(x, kernel).compile().as_text()
    assert "f32[36,128,16]" in compiled and "f32[36,16,128]{2,1,0} dot" not in compiled


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", CUT)
def test_a_batch_in_several_steps(shape, side, monkeypatch):
    monkeypatch.setattr(winograd, "TILES_PER_STEP", 4)
    plan = winograd._Plan(*shape[:3])
    assert (plan.group, plan.blocks, plan.rows) == CUT[shape]
    with jax.enable_x64(True):
        arrays = case(side, *shape)
        assert_close(by_winograd(*arrays), with_gradients(same(side))(*arrays), 1e-13)


@pytest.mark.parametrize(
    "side, shape",
    [
        (3, (2, 56, 56, 64, 64)),
        (3, (2, 28, 28, 128, 128)),
        (3, (2, 8, 8, 256, 256)),
        (5, (2, 24, 24, 64, 128)),
        (5, (2, 8, 8, 256, 256)),
    ],
)
def test_float32_is_off_by_little(side, shape):
    arrays = case(side, *shape, dtype=np.float32)
    with jax.enable_x64(True):
        exact = with_gradients(same(side))(*(array.astype(np.float64) for array in arrays))
    found = by_winograd(*arrays)
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    exact = [np.asarray(array, np.float32) for array in exact]
    assert_close(found, exact, 2e-5)
