"""Depthwise convolutions as sums of shifted maps, forward and backward, for processors.

Each channel has a kernel of its own, so there are no products of matrices, and XLA's loops for
grouped convolutions on the CPU are scalar. Maps are `[B, H, W, C]`, kernels `[h, w, 1, C]`,
gradients `[B, H', W', C]`.
"""

import functools

import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import convolution_rule as rule
from imvad_jax.ops.convolution_cpu import by_phases


def forward(x: Array, kernel: Array, how: rule.How) -> Array:
    """The convolution: the taps of the kernel times the map where they see it."""
    height, width = rule.output_sides(x.shape, kernel.shape, how)
    padded = _padded(x, how)
    (down, across), (batch, channels) = how.strides, (x.shape[0], x.shape[-1])

    def seen_by(i, j):
        end = (batch, i + down * (height - 1) + 1, j + across * (width - 1) + 1, channels)
        return lax.slice(padded, (0, i, j, 0), end, (1, down, across, 1))

    taps = [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]
    return functools.reduce(jnp.add, [seen_by(i, j) * kernel[i, j, 0] for i, j in taps])


def _padded(x, how):
    """With zeros around; phases may ask for fewer rows or columns than there are, as XLA allows."""
    borders = [(before, after, 0) for before, after in how.padding]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *borders, (0, 0, 0)])


def to_input(kernel: Array, gradient: Array, how: rule.How, shape: tuple[int, ...]) -> Array:
    """The gradient of an input of that shape."""
    return by_phases(gradient, kernel, shape, how, forward)


def to_kernel(x: Array, kernel: Array, gradient: Array, how: rule.How) -> Array:
    """The gradient of the kernel.

    One row of outputs after the other is added to sums for each tap and column, which stay in the
    cache; XLA's reductions over whole maps are scalar.
    """
    rows, columns = kernel.shape[:2]
    (down, across), (batch, height, width, channels) = how.strides, gradient.shape
    padded = _padded(x, how)

    def add_row(number, sums):
        image, line = number // height, number % height
        size = (1, rows, padded.shape[2], channels)
        seen = lax.dynamic_slice(padded, (image, line * down, 0, 0), size)[0]
        outputs = lax.dynamic_slice(gradient, (image, line, 0, 0), (1, 1, width, channels))[0]

        def seen_by(j):
            end = (rows, j + across * (width - 1) + 1, channels)
            return lax.slice(seen, (0, j, 0), end, (1, across, 1))

        return [total + seen_by(j) * outputs for j, total in enumerate(sums)]

    zeros = [jnp.zeros((rows, width, channels), x.dtype) for _ in range(columns)]
    sums = lax.fori_loop(0, batch * height, add_row, zeros)
    return jnp.stack([total.sum(1) for total in sums], 1)[:, :, None]
