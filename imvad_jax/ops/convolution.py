"""Convolutions in the form that is fastest on the platform, forward and backward.

Accelerators, and any platform under `forms("xla")`, use XLA's convolutions. On CPUs, where XLA has
no fast implementation of most gradients:

- 3x3 convolutions of stride 1 use Winograd (`ops.winograd`), where `by_winograd` allows it;
- 1x1 convolutions are matrix products over every `stride`-th position;
- 3x3 convolutions of few channels join neighbouring outputs (`ops.narrow`);
- kernels larger than the map are one product with all their taps;
- gradients of other kernels (except 3x3 of stride 1) are matrix products of rows, a few images at
  a time, and input gradients of strided convolutions are one small convolution per phase.

The form depends only on the shapes of one image and on dtypes, never on the batch size.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import narrow, rows, winograd

LAYOUT = ("NHWC", "HWIO", "NHWC")
FORMS = ("auto", "xla")
# Raised when `by_winograd` or a form changes, which changes results in their last digits.
RULE = 2
# Winograd pays off from this many channels on either side and products per tap of the kernel.
# Measured by `imvad tune_convolution`.
LEAST_CHANNELS = 32
LEAST_PRODUCTS = 1e6
# Largest ratio of positions of padded tiles to positions of the map.
MOST_PADDED = 1.7
# Below this many multiplications per image XLA's form is as good and compiles faster, except for
# the first four kinds above.
LEAST_WORK = 2e7
POSITIONS_PER_STEP = 1024  # of a kernel's gradient by rows

Padding = Sequence[tuple[int, int]]  # zeros before and after rows, and columns


class _How(NamedTuple):
    """The parameters of a convolution besides its arrays."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    precision: lax.PrecisionLike
    form: str


_FORM = contextvars.ContextVar("convolution", default="auto")


@contextlib.contextmanager
def forms(name: str) -> Iterator[None]:
    """Selects the form of convolutions traced in the context: by rule ("auto") or XLA's ("xla").

    Functions that `jax.jit` has traced before keep their form.
    """
    token = _FORM.set(name)
    try:
        yield
    finally:
        _FORM.reset(token)


def as_written() -> bool:
    """Whether convolutions are traced in XLA's form, as under `forms("xla")`."""
    return _FORM.get() == "xla"


def by_winograd(
    shape: Sequence[int], kernel: Sequence[int], dtype, strides: Sequence[int], padding: Padding
) -> bool:
    """Whether Winograd is used to convolve `[B, H, W, C]` with `[h, w, C, D]`, where possible.

    For images split by rows, the rows of all devices decide, so the form is that of whole images.
    """
    shape = (shape[0], shape[1] * rows.count(), *shape[2:])
    return _FORM.get() == "auto" and _winograd_pays(shape, kernel, dtype, _how(strides, padding))


def by_transformed(x: Array, transformed: Array) -> Array:
    """`winograd.convolve`, also of split rows."""
    if rows.count() == 1:
        return winograd.convolve(x, transformed)
    return winograd.convolve(rows.bordered(x, 1, 1), transformed, bordered=True)


def _winograd_pays(shape, kernel, dtype, how) -> bool:
    _, height, width, _ = shape
    *size, inputs, outputs = kernel
    tiles = -(-height // winograd.TILE) * -(-width // winograd.TILE)
    return (
        tuple(size) == (3, 3)
        and how.strides == (1, 1)
        and how.padding == ((1, 1), (1, 1))
        and dtype in (jnp.float32, jnp.float64)
        and min(inputs, outputs) >= LEAST_CHANNELS
        and height * width * inputs * outputs >= LEAST_PRODUCTS
        and tiles * winograd.TILE**2 <= MOST_PADDED * height * width
    )


def convolve(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    precision: lax.PrecisionLike = None,
) -> Array:
    """The convolution of `[B, H, W, C]` with `[h, w, C, D]`: `[B, H', W', D]`.

    Only reverse-mode gradients are supported, except under `forms("xla")`.
    """
    x, how = _with_rows(x, kernel, _how(strides, padding, precision))
    how = _of_small(how, x.shape, kernel, _outputs(x.shape, kernel, how), x.dtype)
    return _xla(x, kernel, how) if how.form == "xla" else _convolve(x, kernel, how)


def _outputs(shape, kernel, how) -> tuple[int, ...]:
    """Height and width of the output of `[B, H, W, C]`."""
    return tuple(
        (shape[axis + 1] + sum(how.padding[axis]) - kernel.shape[axis]) // how.strides[axis] + 1
        for axis in (0, 1)
    )


def convolve_depthwise(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Each channel of `[B, H, W, C]` with a kernel of its own, `[h, w, 1, C]`: `[B, H', W', C]`."""
    x, how = _with_rows(x, kernel, _how(strides, padding, precision))
    return _xla(x, kernel, how, x.shape[-1])


def convolve_transposed(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Adds `x[i, j] @ kernel[u, v]` to the output at `stride * (i, j) + (u, v) - padding`.

    The adjoint of a convolution of the same window, stride and padding, and what PyTorch's
    ConvTranspose2d does with its weight as `[h, w, C, D]`, not flipped. Reverse mode only: the
    gradient is spelt out as that of a strided convolution, because XLA's for the kernel of a
    dilated one is many times slower on processors.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, D]`.
      stride: at least 1.
      padding: rows and columns cut off on every side, at most the window less one.

    Returns:
      `[B, stride * (H - 1) + h - 2 padding, stride * (W - 1) + w - 2 padding, D]`.
    """
    how = _how((stride,) * 2, ((padding,) * 2,) * 2)
    size = [stride * (side - 1) + kernel.shape[0] - 2 * padding for side in x.shape[1:3]]
    shape = (x.shape[0], *size, kernel.shape[3])
    how = _of_small(how, shape, kernel.swapaxes(2, 3), x.shape[1:3], x.dtype)
    return _convolve_transposed(x, kernel, how)


def _how(strides, padding, precision=None) -> _How:
    upper, lower = ((int(before), int(after)) for before, after in padding)
    return _How(tuple(strides), (upper, lower), precision, _FORM.get())


def _with_rows(x: Array, kernel: Array, how: _How) -> tuple[Array, _How]:
    """For images split by rows: a device's rows with the neighbouring rows its outputs need."""
    if rows.count() == 1:
        return x, how
    size, stride, (before, after) = kernel.shape[0], how.strides[0], how.padding[0]
    rows.check_stride(x, stride)
    if not 0 <= before + after - size + stride < stride:
        raise rows.Indivisible(f"a kernel of {size} rows in steps of {stride} changes their number")
    x = rows.bordered(x, before, max(size - stride - before, 0))
    return x, how._replace(padding=((0, 0), how.padding[1]))


def _of_small(how: _How, shape, kernel: Array, outputs: Sequence[int], dtype) -> _How:
    """Selects XLA's form for convolutions of `[B, H, W, C]` of so little work that it is good."""
    ours = (
        kernel.shape[:2] == (1, 1)
        or _winograd_pays(shape, kernel.shape, dtype, how)
        or _is_narrow(shape, kernel.shape, dtype, how)
        or _exceeds(kernel, shape[1:3])
        or _exceeds(kernel, outputs)
    )
    return how._replace(form="xla") if _is_small(kernel, outputs) and not ours else how


def _is_small(kernel: Array, outputs: Sequence[int]) -> bool:
    return kernel.shape[:2] != (1, 1) and kernel.size * math.prod(outputs) < LEAST_WORK


def _exceeds(kernel: Array, sides: Sequence[int]) -> bool:
    """Whether a kernel is larger than a map, for which XLA has scalar loops only."""
    return any(side < size for side, size in zip(sides, kernel.shape[:2], strict=True))


def _is_narrow(shape, kernel, dtype, how) -> bool:
    """Whether any direction is computed by `ops.narrow`."""
    inputs, outputs = kernel[2:]
    return _narrow_fits(shape, kernel, dtype, how) and (
        narrow.joined(inputs, outputs, shape[2]) > 1 or narrow.kernel_gradient_pays(inputs, outputs)
    )


def _narrow_fits(shape, kernel, dtype, how) -> bool:
    """Rows may be without a border: those of neighbouring devices."""
    fits = narrow.fits(shape, kernel, dtype)
    return fits and how.strides == (1, 1) and how.padding[1] == (1, 1)


def _xla(x, kernel, how, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        how.strides,
        how.padding,
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
        precision=how.precision,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, how):
    return _by_platform(_forward, _xla, how, x, kernel)


def _convolve_backward(how, kept, gradient):
    # Two choices, so that the one that nobody asks for is dropped.
    x, kernel = kept
    return (
        _to_input(x.shape, kernel, gradient, how),
        _by_platform(_to_kernel, _xla_to_kernel, how, x, kernel, gradient),
    )


_convolve.defvjp(
    lambda x, kernel, how: (_convolve(x, kernel, how), (x, kernel)), _convolve_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_transposed(x, kernel, how):
    sides = [
        how.strides[axis] * (x.shape[axis + 1] - 1) + kernel.shape[axis] - sum(how.padding[axis])
        for axis in (0, 1)
    ]
    shape = (x.shape[0], *sides, kernel.shape[3])
    return _to_input(shape, kernel.swapaxes(2, 3), x, how)


def _convolve_transposed_backward(how, kept, gradient):
    x, kernel = kept
    kernel = kernel.swapaxes(2, 3)
    found = _by_platform(_to_kernel, _xla_to_kernel, how, gradient, kernel, x)
    return _by_platform(_forward, _xla, how, gradient, kernel), found.swapaxes(2, 3)


_convolve_transposed.defvjp(
    lambda x, kernel, how: (_convolve_transposed(x, kernel, how), (x, kernel)),
    _convolve_transposed_backward,
)


def _by_platform(ours, xla, how, *arrays):
    """Traces both forms for a multi-platform program; lowering selects that of its platform."""
    own, default = functools.partial(ours, how=how), functools.partial(xla, how=how)
    if how.form == "xla":
        return default(*arrays)
    return lax.platform_dependent(*arrays, cpu=own, default=default)


def _to_input(shape, kernel, gradient, how):
    """The gradient of a convolution's input of that shape."""
    own = functools.partial(_own_to_input, shape=shape)
    return _by_platform(own, functools.partial(_xla_to_input, shape=shape), how, kernel, gradient)


def _xla_to_input(kernel, gradient, how, shape):
    zeros = jnp.zeros(shape, gradient.dtype)
    return jax.vjp(lambda x: _xla(x, kernel, how), zeros)[1](gradient)[0]


def _xla_to_kernel(x, kernel, gradient, how):
    return jax.vjp(lambda kernel: _xla(x, kernel, how), kernel)[1](gradient)[0]


def _is_product(kernel, how) -> bool:
    return kernel.shape[:2] == (1, 1) and not any(map(any, how.padding))


def _forward(x, kernel, how):
    if _is_product(kernel, how):
        return _product(x[:, :: how.strides[0], :: how.strides[1]], kernel[0, 0], how)
    if _winograd_pays(x.shape, kernel.shape, x.dtype, how):
        return winograd.convolve(x, winograd.transform_kernel(kernel))
    return _direct(x, kernel, how)


def _direct(x, kernel, how):
    """The definition, in one of three forms."""
    if _exceeds(kernel, x.shape[1:3]):
        return _by_taps(x, kernel, how)
    if _narrow_fits(x.shape, kernel.shape, x.dtype, how):
        count = narrow.joined(*kernel.shape[2:], x.shape[2])
        found = _xla(x, narrow.join(kernel, count), how._replace(strides=(1, count)))
        return found.reshape(*found.shape[:2], x.shape[2], -1)
    return _xla(x, kernel, how)


def _by_taps(x, kernel, how):
    """A small map times a kernel as one product of all windows."""
    height, width = _outputs(x.shape, kernel, how)
    padded = jnp.pad(x, ((0, 0), *how.padding, (0, 0)))
    down, across = how.strides
    taps = [
        padded[:, i::down, j::across][:, :height, :width]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return _product(jnp.concatenate(taps, -1), kernel.reshape(-1, kernel.shape[3]), how)


def _product(x: Array, matrix: Array, how: _How) -> Array:
    """`x @ matrix` as one product of two dimensions, which XLA is fast at."""
    flat = jnp.dot(x.reshape(-1, x.shape[-1]), matrix, precision=how.precision)
    return flat.reshape(*x.shape[:-1], -1)


def _own_to_input(kernel, gradient, how, shape):
    if _is_product(kernel, how):
        return _spread(_product(gradient, kernel[0, 0].T, how), shape, how.strides)
    if _winograd_pays(shape, kernel.shape, gradient.dtype, how):
        return winograd.input_gradient(gradient, kernel)
    sides = gradient.shape[1:3]
    if how.strides == (1, 1):
        if not _exceeds(kernel, sides) and not _narrow_fits(
            shape, kernel.shape, gradient.dtype, how
        ):
            return _xla_to_input(kernel, gradient, how, shape)
    elif _is_small(kernel, sides) and not _exceeds(kernel, sides):
        return _xla_to_input(kernel, gradient, how, shape)
    return _by_phases(gradient, kernel, shape, how)


def _spread(x: Array, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """`x` at every `stride`-th position of zeros of that shape."""
    if x.shape == tuple(shape):
        return x
    inner = [
        (0, whole - stride * (side - 1) - 1, stride - 1)
        for whole, side, stride in zip(shape[1:3], x.shape[1:3], strides, strict=True)
    ]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *inner, (0, 0, 0)])


def _by_phases(gradient, kernel, shape, how):
    """The gradient of a strided convolution's input `[B, H, W, C]`.

    The input's positions of one phase of the stride have met the same taps of the kernel: a small
    convolution of stride 1 each, where XLA's would multiply by the zeros between the outputs.
    """
    strides, across = how.strides, kernel.swapaxes(2, 3)
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
        taken = across[i :: strides[0], j :: strides[1]]
        if not taken.size:
            return jnp.zeros((shape[0], *sides, shape[3]), gradient.dtype)
        step = how._replace(strides=(1, 1), padding=(rows, columns))
        return _direct(gradient, jnp.flip(taken, (0, 1)), step)

    phases = [
        jnp.stack([phase(row, column) for column in range(strides[1])], 3)
        for row in range(strides[0])
    ]
    whole = jnp.stack(phases, 2)  # [B, h, stride, w, stride, C]
    whole = whole.reshape(shape[0], sides[0] * strides[0], sides[1] * strides[1], shape[3])
    return whole[:, : shape[1], : shape[2]]


def _to_kernel(x, kernel, gradient, how):
    if _is_product(kernel, how):
        taken = x[:, :: how.strides[0], :: how.strides[1]]
        return _sum_of_products(taken, gradient, how)[None, None]
    if _winograd_pays(x.shape, kernel.shape, x.dtype, how):
        return winograd.kernel_gradient(x, gradient)
    bordered = how.padding == ((1, 1), (1, 1)) and narrow.kernel_gradient_pays(*kernel.shape[2:])
    if bordered and _narrow_fits(x.shape, kernel.shape, x.dtype, how):
        return narrow.kernel_gradient(x, gradient, how.precision)
    few = kernel.shape[:2] == (3, 3) and how.strides == (1, 1)  # channels, or a small map
    if few or _is_small(kernel, gradient.shape[1:3]):
        return _xla_to_kernel(x, kernel, gradient, how)
    return _by_rows(x, kernel.shape, gradient, how)


def _sum_of_products(x: Array, gradient: Array, how: _How) -> Array:
    """Summed over all positions: `[..., C]` and `[..., D]` to `[C, D]`."""
    flat = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return jnp.einsum("nc,nd->cd", *flat, precision=how.precision)


def _by_rows(x, shape, gradient, how):
    """The gradient of a kernel `[h, w, C, D]`: positions times taps, one product for each row."""
    batch, height, width, outputs = gradient.shape
    group = max(1, POSITIONS_PER_STEP // (height * width))
    while batch % group:
        group -= 1
    rows, columns, inputs, _ = shape
    last = [(side - 1) * stride for side, stride in zip((height, width), how.strides, strict=True)]

    def step(total, pair):
        images, gradients = pair
        padded = jnp.pad(images, ((0, 0), *how.padding, (0, 0)))

        def taps(i):
            windows = [
                lax.slice(
                    padded,
                    (0, i, j, 0),
                    (group, i + last[0] + 1, j + last[1] + 1, inputs),
                    (1, *how.strides, 1),
                )
                for j in range(columns)
            ]
            return jnp.concatenate(windows, -1)

        products = [_sum_of_products(taps(i), gradients, how) for i in range(rows)]
        return total + jnp.stack(products), None

    total = jnp.zeros((rows, columns * inputs, outputs), x.dtype)
    if group == batch:
        total, _ = step(total, (x, gradient))
    else:
        groups = [a.reshape(batch // group, group, *a.shape[1:]) for a in (x, gradient)]
        total, _ = lax.scan(step, total, tuple(groups))
    return total.reshape(shape)
