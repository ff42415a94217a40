"""Transposed convolution with PyTorch's geometry and weights."""

import functools
from collections.abc import Sequence

import jax
from jax import Array, lax

LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Convolution of `[B, H, W, C]` with `[h, w, C, D]`, `padding` zeros on every side."""
    border = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), border, dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def transposed_convolution(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Adds `x[i, j] @ kernel[u, v]` to the output at `stride * (i, j) + (u, v) - padding`.

    The adjoint of a convolution of the same window, stride and padding, and what PyTorch's
    ConvTranspose2d does with its weight as `[h, w, C, D]`, not flipped. Reverse mode only: the
    gradient is spelt out as that of a strided convolution, because XLA's for the kernel of a
    dilated one is many times slower on the CPU.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, D]`.
      stride: at least 1.
      padding: rows and columns cut off on every side, at most the window less one.

    Returns:
      `[B, stride * (H - 1) + h - 2 padding, stride * (W - 1) + w - 2 padding, D]`.
    """
    border = [(side - 1 - padding,) * 2 for side in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x, kernel[::-1, ::-1], (1, 1), border, lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )  # fmt: skip


def _forward(x: Array, kernel: Array, stride: int, padding: int):
    return transposed_convolution(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: int, residuals: Sequence[Array], gradient: Array):
    x, kernel = residuals
    swapped = kernel.swapaxes(2, 3)
    found, pull = jax.vjp(lambda k: convolution(gradient, k, stride, padding), swapped)
    return found, pull(x)[0].swapaxes(2, 3)


transposed_convolution.defvjp(_forward, _backward)
