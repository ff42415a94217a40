"""Convolutions in the form that is fastest on the platform, forward and backward.

Accelerators, and any platform under `forms("xla")`, use XLA's convolutions. On CPUs, where XLA has
no fast implementation of most gradients:

- 3x3 and 5x5 convolutions of stride 1 use Winograd (`ops.winograd`), where `by_winograd` allows it;
- 1x1 convolutions are matrix products over every `stride`-th position;
- kernels as large as the map, without a border, are matrix products over all positions;
- 3x3 convolutions of few channels join neighbouring outputs (`ops.narrow`);
- convolutions of maps smaller than the kernel are one product of all windows;
- depthwise convolutions are sums of shifted maps (`ops.depthwise`);
- gradients of other kernels (except 3x3 of stride 1) are one matrix product of all taps, some
  positions at a time, and input gradients of strided convolutions are one small convolution per
  phase.

`ops.convolution_rule` chooses by the shapes of one image and by dtypes, never by the batch size.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator, Sequence

import jax
from jax import Array, lax

from imvad_jax.ops import convolution_cpu as cpu
from imvad_jax.ops import convolution_rule as rule
from imvad_jax.ops import depthwise, rows, winograd

FORMS = ("auto", "xla")
Padding = Sequence[tuple[int, int]]  # zeros before and after rows, and columns

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
    return _FORM.get() == "auto" and rule.winograd_pays(
        shape, kernel, dtype, _how(strides, padding)
    )


def by_transformed(x: Array, transformed: Array) -> Array:
    """`winograd.convolve`, also of split rows."""
    if rows.count() == 1:
        return winograd.convolve(x, transformed)
    border = winograd.border_of(transformed)
    return winograd.convolve(rows.bordered(x, border, border), transformed, bordered=True)


def by_shared_outputs(x: Array, transformed: Array) -> Array:
    """As `by_transformed` of split rows, but each device computes some outputs of all rows.

    `transformed` is this device's part `[36 or 64, D / devices, C]` of what
    `winograd.transform_outputs` gives.
    """
    return rows.exchange(winograd.convolve_outputs(rows.gather(x), transformed))


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
    how = rule.with_form(how, x.shape, kernel.shape, x.dtype)
    return cpu.xla(x, kernel, how) if how.form == "xla" else _convolve(x, kernel, how)


def convolve_depthwise(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: Padding,
    precision: lax.PrecisionLike = None,
) -> Array:
    """Each channel of `[B, H, W, C]` with a kernel of its own, `[h, w, 1, C]`: `[B, H', W', C]`.

    Only reverse-mode gradients are supported, except under `forms("xla")`.
    """
    x, how = _with_rows(x, kernel, _how(strides, padding, precision))
    if how.form == "xla" or not rule.depthwise_fits(x.dtype):
        return cpu.xla(x, kernel, how, x.shape[-1])
    return _convolve_depthwise(x, kernel, how)


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
    kernel_shape = (*kernel.shape[:2], kernel.shape[3], kernel.shape[2])
    how = rule.with_form(how, shape, kernel_shape, x.dtype)
    return _convolve_transposed(x, kernel, how)


def _how(strides, padding, precision=None) -> rule.How:
    upper, lower = ((int(before), int(after)) for before, after in padding)
    return rule.How(tuple(strides), (upper, lower), precision, _FORM.get())


def _with_rows(x: Array, kernel: Array, how: rule.How) -> tuple[Array, rule.How]:
    """For images split by rows: a device's rows with the neighbouring rows its outputs need."""
    if rows.count() == 1:
        return x, how
    size, stride, (before, after) = kernel.shape[0], how.strides[0], how.padding[0]
    rows.check_stride(x, stride)
    if not 0 <= before + after - size + stride < stride:
        raise rows.Indivisible(f"a kernel of {size} rows in steps of {stride} changes their number")
    x = rows.bordered(x, before, max(size - stride - before, 0))
    return x, how._replace(padding=((0, 0), how.padding[1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x, kernel, how):
    return _by_platform(cpu.forward, cpu.xla, how, x, kernel)


def _convolve_backward(how, kept, gradient):
    # Two choices, so that the one that nobody asks for is dropped.
    x, kernel = kept
    return (
        _to_input(x.shape, kernel, gradient, how),
        _by_platform(cpu.to_kernel, cpu.xla_to_kernel, how, x, kernel, gradient),
    )


_convolve.defvjp(
    lambda x, kernel, how: (_convolve(x, kernel, how), (x, kernel)), _convolve_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_transposed(x, kernel, how):
    if how.form == "xla":
        return cpu.xla_transposed(x, kernel, how)
    sides = [
        how.strides[axis] * (x.shape[axis + 1] - 1) + kernel.shape[axis] - sum(how.padding[axis])
        for axis in (0, 1)
    ]
    shape = (x.shape[0], *sides, kernel.shape[3])
    return _to_input(shape, kernel.swapaxes(2, 3), x, how)


def _convolve_transposed_backward(how, kept, gradient):
    x, kernel = kept
    kernel = kernel.swapaxes(2, 3)
    found = _by_platform(cpu.to_kernel, cpu.xla_to_kernel, how, gradient, kernel, x)
    return _by_platform(cpu.forward, cpu.xla, how, gradient, kernel), found.swapaxes(2, 3)


_convolve_transposed.defvjp(
    lambda x, kernel, how: (_convolve_transposed(x, kernel, how), (x, kernel)),
    _convolve_transposed_backward,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve_depthwise(x, kernel, how):
    default = functools.partial(cpu.xla, groups=x.shape[-1])
    return _by_platform(depthwise.forward, default, how, x, kernel)


def _convolve_depthwise_backward(how, kept, gradient):
    x, kernel = kept
    own = functools.partial(depthwise.to_input, shape=x.shape)
    default = functools.partial(cpu.xla_to_input, shape=x.shape, groups=x.shape[-1])
    to_kernel = functools.partial(cpu.xla_to_kernel, groups=x.shape[-1])
    return (
        _by_platform(own, default, how, kernel, gradient),
        _by_platform(depthwise.to_kernel, to_kernel, how, x, kernel, gradient),
    )


_convolve_depthwise.defvjp(
    lambda x, kernel, how: (_convolve_depthwise(x, kernel, how), (x, kernel)),
    _convolve_depthwise_backward,
)


def _by_platform(ours, xla, how, *arrays):
    """Traces both forms for a multi-platform program; lowering selects that of its platform."""
    own, default = functools.partial(ours, how=how), functools.partial(xla, how=how)
    if how.form == "xla":
        return default(*arrays)
    return lax.platform_dependent(*arrays, cpu=own, default=default)


def _to_input(shape, kernel, gradient, how):
    """The gradient of a convolution's input of that shape."""
    own = functools.partial(cpu.to_input, shape=shape)
    default = functools.partial(cpu.xla_to_input, shape=shape)
    return _by_platform(own, default, how, kernel, gradient)
