"""3x3 convolutions of few channels on large maps, for processors.

XLA's products are as wide as there are output channels, so that with 16 or fewer most of the time
goes into collecting their inputs. Here several neighbouring outputs of a row count as channels of
one position, and gradients of kernels are products with the taps of the side with fewer channels.
"""

import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import processor

MOST_CHANNELS = 16  # with more, XLA's form is faster
LEAST_POSITIONS = 4096  # of a map
WIDTH = 32  # output channels of a joined position
MOST_JOINED = 8  # outputs; each further one multiplies by more zeros
POSITIONS_PER_STEP = 512  # of a kernel's gradient: its taps stay in the cache


def joined(inputs: int, outputs: int, width: int) -> int:
    """How many neighbouring outputs of a row of `width` are computed together; 1: not so.

    Of an odd number of input channels at least 4: their windows are slower to collect. 16 channels
    on both sides fill vectors of 256 bits, but not those of 512.
    """
    filled = min(inputs, outputs) >= MOST_CHANNELS and not processor.has_wide_vectors()
    if max(inputs, outputs) > MOST_CHANNELS or filled:
        return 1
    count = min(MOST_JOINED, max(WIDTH // outputs, 4 if inputs % 2 else 2))
    return next(n for n in (8, 4, 2, 1) if n <= count and width % n == 0)


def join(kernel: Array, count: int) -> Array:
    """A kernel `[3, 3, C, D]` for `count` outputs at once: `[3, 2 + count, C, count * D]`.

    To be moved on by `count` columns at a time.
    """
    shifted = [
        jnp.pad(kernel, ((0, 0), (left, count - 1 - left), (0, 0), (0, 0))) for left in range(count)
    ]
    return jnp.concatenate(shifted, -1)


def kernel_gradient_pays(inputs: int, outputs: int) -> bool:
    """Whether `kernel_gradient` is faster than XLA's form, and than one product of all taps."""
    few = outputs <= MOST_CHANNELS and inputs <= 2 * MOST_CHANNELS
    return few and processor.has_wide_vectors()


def kernel_gradient(x: Array, gradient: Array, precision: lax.PrecisionLike = None) -> Array:
    """Of a convolution with a border of one zero: `[B, H, W, C]`, `[B, H, W, D]` to `[3, 3, C, D]`.

    A sum of products over a few rows at a time.
    """
    batch, height, width, inputs = x.shape
    outputs = gradient.shape[-1]
    of_inputs = inputs <= outputs  # whose taps are taken
    rows = next(n for n in range(max(1, POSITIONS_PER_STEP // width), 0, -1) if height % n == 0)
    padded, plain = (x, gradient) if of_inputs else (gradient, x)
    padded = jnp.pad(padded, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def step(total, number):
        image, row = number // (height // rows), number % (height // rows) * rows
        taps = _taps(_rows(padded, image, row, rows + 2), rows, width)
        flat = _rows(plain, image, row, rows).reshape(rows * width, -1)
        return total + jnp.einsum("nd,nt->dt", flat, taps, precision=precision), None

    start = jnp.zeros((max(inputs, outputs), 9 * min(inputs, outputs)), x.dtype)
    total, _ = lax.scan(step, start, jnp.arange(batch * height // rows))
    total = total.reshape(total.shape[0], 3, 3, -1)
    if of_inputs:
        return total.transpose(1, 2, 3, 0)
    return jnp.flip(total.transpose(1, 2, 0, 3), (0, 1))  # a tap of an output is the opposite one


def _rows(x: Array, image: Array, row: Array, count: int) -> Array:
    return lax.dynamic_slice(x, (image, row, 0, 0), (1, count, *x.shape[2:]))[0]


def _taps(x: Array, rows: int, width: int) -> Array:
    """The 3x3 windows of `[rows + 2, width + 2, C]`: `[rows * width, 9 C]`."""
    shifts = [x[i : i + rows, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, -1).reshape(rows * width, -1)
