"""Chooses the form of a convolution on a CPU, by the shapes of one image, the kernel and dtypes.

With few channels the width of the processor's vectors counts too (`ops.narrow`). Shapes are
`[B, H, W, C]` and `[h, w, C, D]`. The batch size never matters.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from imvad_jax.ops import narrow, processor
from imvad_jax.ops.winograd_matrices import TILE

WIDE = (jnp.float32, jnp.float64)  # narrower types would add up less exactly than XLA does
# Raised when a choice or a form changes, which changes results in their last digits.
RULE = 8
# Winograd pays off from this many channels on either side, multiplications per image, and tiles per
# image by the side of the kernel. Measured by `imvad tune_convolution`.
LEAST_CHANNELS = 32
LEAST_PRODUCTS = 9e6
LEAST_TILES = {3: 1, 5: 4}
# Largest ratio of positions of padded tiles to positions of the map.
MOST_PADDED = 1.7
# From this many channels per tile on, devices that share an image share a convolution's outputs.
CHANNELS_PER_TILE = 16
# Below this many multiplications per image XLA's gradients are as good and compile faster.
LEAST_WORK = 2e7
# The same where XLA is slower: of gradients of strided kernels with more outputs than inputs,
# and of few channels unless vectors are wide.
LEAST_SLOW_WORK = 4e6


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
    side = size[0]
    return (
        tuple(size) == (side, side)
        and side in LEAST_TILES
        and how.strides == (1, 1)
        and how.padding == ((side // 2,) * 2,) * 2
        and dtype in WIDE
        and min(inputs, outputs) >= LEAST_CHANNELS
        and height * width * math.prod(kernel) >= LEAST_PRODUCTS
        and _tiles(shape) >= LEAST_TILES[side]
        and _tiles(shape) * TILE**2 <= MOST_PADDED * height * width
    )


def _tiles(shape) -> int:
    """Number of Winograd's tiles of an image."""
    return math.prod(-(-side // TILE) for side in shape[1:3])


def outputs_outweigh_rows(shape, kernel) -> bool:
    """Whether devices that share an image had better share the outputs of a Winograd convolution.

    Where an image has few tiles and the kernel many channels, reading the kernel takes longest, and
    this way each device reads its part.
    """
    return min(kernel[2:]) >= CHANNELS_PER_TILE * _tiles(shape)


def with_form(how: How, shape, kernel, dtype) -> How:
    """Selects XLA's convolution at once where it is XLA's in all directions."""
    directions = (forward, to_input, to_kernel)
    plain = all(form(shape, kernel, dtype, how) == "xla" for form in directions)
    return how._replace(form="xla") if plain else how


def forward(shape, kernel, dtype, how) -> str:
    """The form of the convolution: whole, product, winograd, or as `direct`."""
    return _of_all(shape, kernel, dtype, how) or direct(shape, kernel, dtype, how)


def direct(shape, kernel, dtype, how) -> str:
    """The form of a convolution by its definition: taps, narrow or xla."""
    if exceeds(kernel, shape[1:3]):
        return "taps"
    _, _, inputs, outputs = kernel
    fits = narrow_fits(shape, kernel, dtype, how)
    return "narrow" if fits and narrow.joined(inputs, outputs, shape[2]) > 1 else "xla"


def to_input(shape, kernel, dtype, how) -> str:
    """The form of the gradient of the input: whole, product, winograd, phases or xla."""
    if form := _of_all(shape, kernel, dtype, how):
        return form
    outputs = output_sides(shape, kernel, how)
    if how.strides == (1, 1):
        ours = narrow_fits(shape, kernel, dtype, how)
    else:
        ours = not is_small(kernel, outputs, LEAST_WORK)
    return "phases" if ours or exceeds(kernel, outputs) else "xla"


def to_kernel(shape, kernel, dtype, how) -> str:
    """The form of the gradient of the kernel: whole, product, winograd, narrow, windows or xla."""
    if form := _of_all(shape, kernel, dtype, how):
        return form
    bordered = how.padding == ((1, 1), (1, 1))
    fits = bordered and narrow_fits(shape, kernel, dtype, how)
    if fits and narrow.kernel_gradient_pays(kernel[2], kernel[3]):
        return "narrow"
    if dtype not in WIDE:
        return "xla"
    slow = how.strides != (1, 1) and kernel[3] > kernel[2]
    if tuple(kernel[:2]) == (3, 3) and how.strides == (1, 1):  # few channels, or a small map
        slow = min(kernel[2:]) < LEAST_CHANNELS and not processor.has_wide_vectors()
        if not slow:
            return "xla"
    least = min(LEAST_SLOW_WORK, LEAST_WORK) if slow else LEAST_WORK
    return "xla" if is_small(kernel, output_sides(shape, kernel, how), least) else "windows"


def _of_all(shape, kernel, dtype, how) -> str | None:
    """The form that all three directions have, if there is one."""
    if not any(map(any, how.padding)):
        if tuple(kernel[:2]) == tuple(shape[1:3]):
            return "whole"
        if tuple(kernel[:2]) == (1, 1):
            return "product"
    return "winograd" if winograd_pays(shape, kernel, dtype, how) else None


def output_sides(shape, kernel, how) -> tuple[int, int]:
    """Height and width of the output of `[B, H, W, C]`."""
    height, width = (
        (shape[axis + 1] + sum(how.padding[axis]) - kernel[axis]) // how.strides[axis] + 1
        for axis in (0, 1)
    )
    return height, width


def is_small(kernel: Sequence[int], outputs: Sequence[int], least: float) -> bool:
    """Whether a convolution is less than so many multiplications per image."""
    return math.prod(kernel) * math.prod(outputs) < least


def depthwise_fits(dtype) -> bool:
    """Whether `ops.depthwise` computes depthwise convolutions."""
    return dtype in WIDE


def exceeds(kernel: Sequence[int], sides: Sequence[int]) -> bool:
    """Whether a kernel is larger than a map, for which XLA has scalar loops only."""
    return any(side < size for side, size in zip(sides, kernel[:2], strict=True))


def narrow_fits(shape, kernel, dtype, how) -> bool:
    """Whether `ops.narrow` takes these maps; rows may have their border already."""
    return (
        tuple(kernel[:2]) == (3, 3)
        and how.strides == (1, 1)
        and how.padding[1] == (1, 1)
        and dtype in WIDE
        and shape[1] * shape[2] >= narrow.LEAST_POSITIONS
    )
