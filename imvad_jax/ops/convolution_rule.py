"""Chooses the form of a convolution on a CPU, by the shapes of one image, the kernel and dtypes.

Shapes are `[B, H, W, C]` and `[h, w, C, D]`. The batch size never matters.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from imvad_jax.ops import narrow, winograd

# Raised when a choice or a form changes, which changes results in their last digits.
RULE = 2
# Winograd pays off from this many channels on either side and products per tap of the kernel.
# Measured by `imvad tune_convolution`.
LEAST_CHANNELS = 32
LEAST_PRODUCTS = 1e6
# Largest ratio of positions of padded tiles to positions of the map.
MOST_PADDED = 1.7
# Below this many multiplications per image XLA's gradients are as good and compile faster.
LEAST_WORK = 2e7


class How(NamedTuple):
    """The parameters of a convolution besides its arrays."""

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    precision: lax.PrecisionLike
    form: str


def winograd_pays(shape, kernel, dtype, how) -> bool:
    """Whether Winograd is faster, where it is possible."""
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


def output_sides(shape, kernel, how) -> tuple[int, int]:
    """Height and width of the output of `[B, H, W, C]`."""
    height, width = (
        (shape[axis + 1] + sum(how.padding[axis]) - kernel[axis]) // how.strides[axis] + 1
        for axis in (0, 1)
    )
    return height, width


def of_small(how: How, shape, kernel, dtype) -> How:
    """Selects XLA's form for convolutions of so little work that it is good in all directions."""
    outputs = output_sides(shape, kernel, how)
    ours = (
        tuple(kernel[:2]) == (1, 1)
        or winograd_pays(shape, kernel, dtype, how)
        or narrow_pays(shape, kernel, dtype, how)
        or exceeds(kernel, shape[1:3])
        or exceeds(kernel, outputs)
    )
    return how._replace(form="xla") if is_small(kernel, outputs) and not ours else how


def is_small(kernel: Sequence[int], outputs: Sequence[int]) -> bool:
    """Whether a convolution is too little work for gradients by rows and phases."""
    return math.prod(kernel) * math.prod(outputs) < LEAST_WORK


def exceeds(kernel: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a kernel is larger than a map, for which XLA has scalar loops only."""
    return any(side < size for side, size in zip(sides, kernel[:2], strict=True))


def narrow_pays(shape, kernel, dtype, how) -> bool:
    """Whether `ops.narrow` computes any direction."""
    inputs, outputs = kernel[2:]
    return narrow_fits(shape, kernel, dtype, how) and (
        narrow.joined(inputs, outputs, shape[2]) > 1 or narrow.kernel_gradient_pays(inputs, outputs)
    )


def narrow_fits(shape, kernel, dtype, how) -> bool:
    """Whether `ops.narrow` takes these maps; rows may have their border already."""
    return (
        tuple(kernel[:2]) == (3, 3)
        and how.strides == (1, 1)
        and how.padding[1] == (1, 1)
        and dtype in (jnp.float32, jnp.float64)
        and shape[1] * shape[2] >= narrow.LEAST_POSITIONS
    )
