"""3x3 convolutions of few channels, joined, against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops import convolution_rule, narrow, processor
from imvad_jax.ops.convolution import convolve
from tests.ops.convolved import assert_close, normal, plain, with_gradients

ONE = ((1, 1), (1, 1))


def ours(x, kernel):
    return convolve(x, kernel, (1, 1), ONE)


def set_wide(monkeypatch, wide):
    monkeypatch.setattr(processor, "has_wide_vectors", lambda: wide)


@pytest.fixture
def maps_of_any_size(monkeypatch):
    monkeypatch.setattr(narrow, "LEAST_POSITIONS", 1)


@pytest.mark.parametrize(
    "inputs, outputs", [(16, 16), (3, 16), (6, 16), (16, 2), (16, 3), (32, 16), (1, 1), (16, 32)]
)
@pytest.mark.parametrize("sides", [(6, 8), (5, 7), (3, 12)])
def test_results_and_gradients_are_those_of_xla(
    inputs, outputs, sides, maps_of_any_size, monkeypatch
):
    set_wide(monkeypatch, True)
    with jax.enable_x64(True):
        x, kernel = normal(2, *sides, inputs), normal(3, 3, inputs, outputs, seed=1)
        arrays = x, kernel, normal(2, *sides, outputs, seed=2)
        expected = with_gradients(plain((1, 1), ONE))(*arrays)
        assert_close(with_gradients(lambda *a: ours(*a))(*arrays), expected, 1e-13)


@pytest.mark.parametrize("per_step", [1, 16, 1000])
def test_gradients_of_a_kernel_over_any_number_of_rows(per_step, maps_of_any_size, monkeypatch):
    monkeypatch.setattr(narrow, "POSITIONS_PER_STEP", per_step)
    with jax.enable_x64(True):
        for inputs, outputs in ((2, 3), (3, 2), (16, 17)):
            x, gradient = normal(2, 6, 8, inputs), normal(2, 6, 8, outputs, seed=1)
            kernel = np.zeros((3, 3, inputs, outputs))
            *_, expected = with_gradients(plain((1, 1), ONE))(x, kernel, gradient)
            found = narrow.kernel_gradient(jnp.asarray(x), jnp.asarray(gradient))
            np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("wide", [False, True])
def test_outputs_of_a_row_are_joined_up_to_the_width(wide, monkeypatch):
    set_wide(monkeypatch, wide)
    assert narrow.joined(16, 16, 128) == (2 if wide else 1)  # they fill narrower vectors
    assert narrow.kernel_gradient_pays(16, 2) == narrow.kernel_gradient_pays(16, 16) == wide
    assert narrow.joined(16, 2, 128) == narrow.joined(16, 3, 128) == 8
    assert narrow.joined(3, 16, 128) == 4  # an odd number of channels
    assert narrow.joined(16, 2, 100) == 4 and narrow.joined(16, 2, 127) == 1  # that divides it
    assert narrow.joined(17, 16, 128) == narrow.joined(16, 17, 128) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_only_large_maps_of_wide_types(dtype):
    def is_plain(side):
        x, kernel = jnp.zeros((1, side, side, 8), dtype), jnp.zeros((3, 3, 8, 8), dtype)
        form = jax.jit(lambda *a: ours(*a)).lower(x, kernel).as_text()
        return "dense<[1, 4]>" not in form and "window = {stride = [1, 4]" not in form

    assert is_plain(60)
    assert is_plain(64) == (dtype == jnp.bfloat16)


def test_few_channels_are_never_too_small(monkeypatch):
    monkeypatch.setattr(convolution_rule, "LEAST_WORK", 1e12)
    traced = jax.make_jaxpr(ours)(jnp.zeros((1, 64, 64, 4)), jnp.zeros((3, 3, 4, 4)))
    assert "platform_index" in str(traced)
