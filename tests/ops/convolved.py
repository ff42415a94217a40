"""What tests of convolutions share: XLA's as the definition, and both gradients of a function."""

import jax
import numpy as np
from jax import lax

from imvad_jax.ops.convolution_cpu import LAYOUT


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def plain(strides, padding):
    """XLA's convolution of so many strides and zeros, as a function of the map and the kernel."""
    return lambda x, kernel: lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=LAYOUT
    )


def with_gradients(function):
    """`function(x, kernel)` and its gradients by both, weighted, as one compiled program."""

    def run(x, kernel, weight):
        out, back = jax.vjp(function, x, kernel)
        return out, *back(weight)

    return jax.jit(run)


def assert_close(found, expected, relative):
    """Off by at most so much of the largest value, each."""
    for name, a, b in zip(("output", "input", "kernel"), found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, name
        largest = np.abs(np.asarray(b)).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=relative * largest, err_msg=name)
