"""The forms of convolutions on CPUs, forward and backward; `ops.convolution_rule` chooses.

Maps are `[B, H, W, C]`, kernels `[h, w, C, D]`, gradients `[B, H', W', D]`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import convolution_rule as rule
from imvad_jax.ops import narrow, winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
VALUES_PER_STEP = 2**17  # of the windows of a kernel's gradient, which stay in the cache


def xla(x, kernel, how, groups=1):
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        how.strides,
        how.padding,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        precision=how.precision,
    )


def xla_to_input(kernel, gradient, how, shape, groups=1):
    """XLA's gradient of an input of that shape."""
    zeros = jnp.zeros(shape, gradient.dtype)
    return jax.vjp(lambda x: xla(x, kernel, how, groups), zeros)[1](gradient)[0]


def xla_transposed(x, kernel, how):
    """XLA's transposed convolution with `[h, w, C, D]`.

    It is `xla_to_input` with the kernel's axes exchanged, in the layout that exports can read.
    """
    padding = [
        (side - 1 - before, side - 1 - after)
        for side, (before, after) in zip(kernel.shape[:2], how.padding, strict=True)
    ]
    return lax.conv_general_dilated(
        x,
        jnp.flip(kernel, (0, 1)),
        (1, 1),
        padding,
        lhs_dilation=how.strides,
        dimension_numbers=LAYOUT,
        precision=how.precision,
    )


def xla_to_kernel(x, kernel, gradient, how, groups=1):
    """XLA's gradient of the kernel."""
    return jax.vjp(lambda kernel: xla(x, kernel, how, groups), kernel)[1](gradient)[0]


def forward(x, kernel, how):
    """The convolution by the rule."""
    form = rule.forward(x.shape, kernel.shape, x.dtype, how)
    if form == "whole":
        return _product(x.reshape(x.shape[0], 1, 1, -1), kernel.reshape(-1, kernel.shape[3]), how)
    if form == "product":
        return _product(x[:, :: how.strides[0], :: how.strides[1]], kernel[0, 0], how)
    if form == "winograd":
        return winograd.convolve(x, winograd.transform_kernel(kernel))
    return _direct(x, kernel, how)


def _direct(x, kernel, how):
    """The definition, in one of three forms."""
    form = rule.direct(x.shape, kernel.shape, x.dtype, how)
    if form == "taps":
        return _by_taps(x, kernel, how)
    if form == "narrow":
        count = narrow.joined(kernel.shape[2], kernel.shape[3], x.shape[2])
        found = xla(x, narrow.join(kernel, count), how._replace(strides=(1, count)))
        return found.reshape(*found.shape[:2], x.shape[2], -1)
    return xla(x, kernel, how)


def _by_taps(x, kernel, how):
    """A small map times a kernel as one product of all windows."""
    height, width = rule.output_sides(x.shape, kernel.shape, how)
    padded = jnp.pad(x, ((0, 0), *how.padding, (0, 0)))
    down, across = how.strides
    taps = [
        padded[:, i::down, j::across][:, :height, :width]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return _product(jnp.concatenate(taps, -1), kernel.reshape(-1, kernel.shape[3]), how)


def _product(x: Array, matrix: Array, how: rule.How) -> Array:
    """`x @ matrix` as one product of two dimensions, which XLA is fast at."""
    flat = jnp.dot(x.reshape(-1, x.shape[-1]), matrix, precision=how.precision)
    return flat.reshape(*x.shape[:-1], -1)


def to_input(kernel, gradient, how, shape):
    """The gradient of an input of that shape by the rule."""
    form = rule.to_input(shape, kernel.shape, gradient.dtype, how)
    if form == "whole":
        return _product(gradient, kernel.reshape(-1, kernel.shape[3]).T, how).reshape(shape)
    if form == "product":
        return _spread(_product(gradient, kernel[0, 0].T, how), shape, how.strides)
    if form == "winograd":
        return winograd.input_gradient(gradient, kernel)
    if form == "phases":
        return by_phases(gradient, kernel.swapaxes(2, 3), shape, how, _direct)
    return xla_to_input(kernel, gradient, how, shape)


def _spread(x: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """`x` at every `stride`-th position of zeros of that shape."""
    if x.shape == tuple(shape):
        return x
    inner = [
        (0, whole - stride * (side - 1) - 1, stride - 1)
        for whole, side, stride in zip(shape[1:3], x.shape[1:3], strides, strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def by_phases(gradient, kernel, shape, how, convolve):
    """The gradient of a strided convolution's input `[B, H, W, C]`.

    The input's positions of one phase of the stride have met the same taps of the kernel: a small
    convolution of stride 1 each, where XLA's would multiply by the zeros between the outputs.
    `convolve(gradient, kernel, how)` is such a one; the kernel leads from outputs to inputs.
    """
    strides = how.strides
    sides = [-(-side // stride) for side, stride in zip(shape[1:3], strides, strict=True)]

    def taps(axis, phase):
        """The first tap, and the borders of a convolution with every stride-th from there."""
        stride, before = strides[axis], how.padding[axis][0]
        first = (phase + before) % stride
        count = len(range(first, kernel.shape[axis], stride))
        low = count - 1 - (phase + before - first) // stride
        return first, (low, sides[axis] - gradient.shape[axis + 1] - low + count - 1)

    def phase(row, column):
        (i, rows), (j, columns) = taps(0, row), taps(1, column)
        taken = kernel[i :: strides[0], j :: strides[1]]
        if not taken.size:
            return jnp.zeros((shape[0], *sides, shape[3]), gradient.dtype)
        step = how._replace(strides=(1, 1), padding=(rows, columns))
        return convolve(gradient, jnp.flip(taken, (0, 1)), step)

    phases = [
        jnp.stack([phase(row, column) for column in range(strides[1])], 3)
        for row in range(strides[0])
    ]
    whole = jnp.stack(phases, 2)  # [B, h, stride, w, stride, C]
    whole = whole.reshape(shape[0], sides[0] * strides[0], sides[1] * strides[1], shape[3])
    return whole[:, : shape[1], : shape[2]]


def to_kernel(x, kernel, gradient, how):
    """The gradient of the kernel by the rule."""
    form = rule.to_kernel(x.shape, kernel.shape, x.dtype, how)
    if form == "whole":
        return _sum_of_products(x.reshape(x.shape[0], -1), gradient, how).reshape(kernel.shape)
    if form == "product":
        taken = x[:, :: how.strides[0], :: how.strides[1]]
        return _sum_of_products(taken, gradient, how)[None, None]
    if form == "winograd":
        return winograd.kernel_gradient(x, gradient, kernel.shape[0])
    if form == "narrow":
        return narrow.kernel_gradient(x, gradient, how.precision)
    if form == "windows":
        return _by_windows(x, kernel.shape, gradient, how)
    return xla_to_kernel(x, kernel, gradient, how)


def _sum_of_products(x: Array, gradient: Array, how: rule.How) -> Array:
    """Summed over all positions: `[..., C]` and `[..., D]` to `[C, D]`."""
    flat = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return jnp.einsum("nc,nd->cd", *flat, precision=how.precision)


def _by_windows(x, shape, gradient, how):
    """The gradient of a kernel `[h, w, C, D]`: all taps of some positions at a time, one product.

    Channels come first, so that the product is a plain one of `[h w C, N]` and `[N, D]`: XLA is
    slower with one that sums over the first axis of both. The positions of one phase of the
    strides lie side by side, so that a tap is a slice. The taps are those of the side with fewer
    channels, where there are no strides.
    """
    if how.strides == (1, 1) and shape[3] < shape[2]:
        borders = [
            (side - 1 - before, side - 1 - after)
            for side, (before, after) in zip(shape[:2], how.padding, strict=True)
        ]
        exchanged = (*shape[:2], shape[3], shape[2])
        found = _by_windows(gradient, exchanged, x, how._replace(padding=tuple(borders)))
        return jnp.flip(found, (0, 1)).swapaxes(2, 3)
    batch, height, width, outputs = gradient.shape
    *size, inputs, _ = shape
    more = [(side - 1) // stride for side, stride in zip(size, how.strides, strict=True)]
    # With fewer positions than outputs the sum would be read and written more than the windows.
    positions = max(VALUES_PER_STEP // math.prod(shape[:3]), 2 * outputs)
    lines = _nearest_divisor(height, positions / width)
    images = _nearest_divisor(batch, positions / (width * height)) if lines == height else 1
    phases = _phases(x, (height + more[0], width + more[1]), how)

    def tap(part, row, column):
        (i, u), (j, v) = (divmod(n, s) for n, s in zip((row, column), how.strides, strict=True))
        start = (u, v, 0, 0, i, j)
        stop = (u + 1, v + 1, inputs, images, i + lines, j + width)
        return lax.slice(part, start, stop).reshape(inputs, -1)

    def step(i, total):
        image, line = divmod(i, height // lines)
        image, line = image * images, line * lines
        extent = (*how.strides, inputs, images, lines + more[0], width + more[1])
        part = lax.dynamic_slice(phases, (0, 0, 0, image, line, 0), extent)
        taps = [tap(part, row, column) for row in range(size[0]) for column in range(size[1])]
        extent = (images, lines, width, outputs)
        rows = lax.dynamic_slice(gradient, (image, line, 0, 0), extent).reshape(-1, outputs)
        return total + jnp.matmul(jnp.concatenate(taps), rows, precision=how.precision)

    total = jnp.zeros((size[0] * size[1] * inputs, outputs), x.dtype)
    count = batch // images * (height // lines)
    return lax.fori_loop(0, count, step, total).reshape(shape)


def _nearest_divisor(number: int, wanted: float) -> int:
    """The divisor of a number that is nearest to what is wanted, by their ratio."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n / wanted)))


def _phases(x: Array, sides: Sequence[int], how: rule.How) -> Array:
    """`[B, H, W, C]` with its border, by phases of the strides: `[s, t, C, B, *sides]`."""
    (s, t), (height, width) = how.strides, sides
    after = [
        stride * side - x.shape[axis + 1] - how.padding[axis][0]
        for axis, (stride, side) in enumerate(zip(how.strides, sides, strict=True))
    ]
    border = [(how.padding[axis][0], after[axis], 0) for axis in (0, 1)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *border, (0, 0, 0)])
    x = x.reshape(x.shape[0], height, s, width, t, x.shape[-1])
    return x.transpose(2, 4, 5, 0, 1, 3)
