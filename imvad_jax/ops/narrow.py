"""3x3 convolutions of few channels on large maps, for processors.

XLA's products are as wide as there are output channels, so that with 16 or fewer most of the time
goes into collecting their inputs. Here several neighbouring outputs of a row count as channels of
one position, and gradients of kernels are products with the taps of the side with fewer channels.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from imvad_jax.ops import processor

MOST_CHANNELS = 16  # with more, XLA's form is faster
LEAST_POSITIONS = 4096  # of a map
WIDTH = 32  # output channels of a joined position
MOST_JOINED = 8  # outputs; each further one multiplies by more zeros
POSITIONS_PER_STEP = 1664  # of a kernel's gradient: its taps stay in the cache


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

    A sum of products over some rows at a time, of all taps of the side with fewer channels and the
    other side. Where both have enough, of the columns' taps of the input and the rows' taps of the
    output: a third less to copy, and a product of more equal sides.
    """
    inputs, outputs = x.shape[-1], gradient.shape[-1]
    # A tap of the output is the opposite one of the input.
    if min(inputs, outputs) >= MOST_CHANNELS:
        found = _product_of_taps(gradient, (3, 1), x, (1, 3), precision)
        return jnp.flip(found.reshape(3, outputs, 3, inputs), 0).transpose(0, 2, 3, 1)
    if inputs <= outputs:
        found = _product_of_taps(gradient, (1, 1), x, (3, 3), precision)
        return found.reshape(outputs, 3, 3, inputs).transpose(1, 2, 3, 0)
    found = _product_of_taps(x, (1, 1), gradient, (3, 3), precision)
    return jnp.flip(found.reshape(inputs, 3, 3, outputs).transpose(1, 2, 0, 3), (0, 1))


def _product_of_taps(x, taps_of_x, y, taps_of_y, precision):
    """Summed over all positions: taps `(h, w)` of `[B, H, W, C]` times those of `[B, H, W, D]`.

    `[h w C, h w D]`. Taps of rows of both sides meet in the border, too.
    """
    height, width = x.shape[1:3]
    rows = height + taps_of_x[0] - 1
    most = max(1, POSITIONS_PER_STEP // width)
    per_step = next(n for n in range(most, 0, -1) if rows % n == 0)

    def bordered(image, taps):
        lines, columns = (rows - height + taps[0] - 1) // 2, (taps[1] - 1) // 2
        return jnp.pad(image, ((lines, lines), (columns, columns), (0, 0)))

    def add_image(total, image):
        sides = bordered(x[image], taps_of_x), bordered(y[image], taps_of_y)

        def add_rows(total, number):
            flat = [
                _taps(side, number * per_step, (per_step, width), taps)
                for side, taps in zip(sides, (taps_of_x, taps_of_y), strict=True)
            ]
            return total + jnp.einsum("nc,nd->cd", *flat, precision=precision), None

        return lax.scan(add_rows, total, jnp.arange(rows // per_step))[0], None

    sizes = [math.prod(taps) * side.shape[-1] for taps, side in ((taps_of_x, x), (taps_of_y, y))]
    return lax.scan(add_image, jnp.zeros(sizes, x.dtype), jnp.arange(x.shape[0]))[0]


def _taps(image: Array, row: Array, size: Sequence[int], taps: Sequence[int]) -> Array:
    """The windows from a row on, `size` of `[H, W, C]`: `[rows * columns, h w C]`."""
    shifts = [
        lax.dynamic_slice(image, (row + i, j, 0), (*size, image.shape[-1]))
        for i in range(taps[0])
        for j in range(taps[1])
    ]
    return jnp.concatenate(shifts, -1).reshape(math.prod(size), -1)
