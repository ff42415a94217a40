"""3x3 and 5x5 convolutions by Winograd's minimal filtering, for processors.

Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308,
section 4. A tile of 4x4 outputs takes 36 products for each pair of channels with a kernel of 3x3,
and 64 with one of 5x5, where the definition takes 144 and 400: the windows of 6x6 or 8x8 inputs and
the kernel are transformed, multiplied, summed over the channels and transformed back. What is left
are 36 or 64 matrix products. In float32 the result is off by about 1e-5 of its largest value;
narrower types are not computed so.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops.winograd_matrices import BY_POINTS, BY_SIDE, TILE

# Tiles per step: its output stays in the cache, and its products are large enough.
TILES_PER_STEP = 128


def border_of(transformed: Array) -> int:
    """Rows and columns of zeros around a map for the kernel `[36 or 64, C, D]`."""
    return BY_POINTS[transformed.shape[0]].border


@jax.jit
def transform_kernel(kernel: Array) -> Array:
    """A kernel `[3, 3, C, D]` or `[5, 5, C, D]` as `convolve` takes it, `[36 or 64, C, D]`."""
    return _product_of(_both_ways(BY_SIDE[kernel.shape[0]].kernel), kernel)


@jax.jit
def input_gradient(gradient: Array, kernel: Array) -> Array:
    """Of the convolution with `[k, k, C, D]`: `[B, H, W, D]` to `[B, H, W, C]`.

    A convolution with the kernel turned around and its channels exchanged.
    """
    turned = _both_ways(BY_SIDE[kernel.shape[0]].kernel[:, ::-1])
    multiply = functools.partial(_products, contracted=2)
    return _convolve(gradient, _product_of(turned, kernel), multiply)


@functools.partial(jax.jit, static_argnames="bordered")
def convolve(x: Array, transformed: Array, bordered: bool = False) -> Array:
    """The convolution of stride 1 that keeps the size: `[B, H, W, C]` to `[B, H, W, D]`.

    `transformed` is what `transform_kernel` gave, of the dtype of `x`. `bordered`: the rows have
    their border already, `[B, H + 2 border_of(transformed), W, C]`.
    """
    return _convolve(x, transformed, _products, bordered)


@jax.jit
def transform_outputs(kernel: Array) -> Array:
    """A kernel `[k, k, C, D]` as `convolve_outputs` takes it, `[36 or 64, D, C]`."""
    return transform_kernel(kernel).swapaxes(1, 2)


@jax.jit
def convolve_outputs(x: Array, transformed: Array) -> Array:
    """As `convolve`, with a kernel `[36 or 64, D, C]`: for few tiles and many channels.

    There the products take as long as it takes to read the kernel.
    """
    return _convolve(x, transformed, _products_of_few)


def _products(tiles: Array, transformed: Array, contracted: int = 1) -> Array:
    """`[points, tiles, C]` to `[points, tiles, D]`; C is the kernel's axis `contracted`."""
    return lax.dot_general(tiles, transformed, (((2,), (contracted,)), ((0,), (0,))))


def _products_of_few(tiles: Array, transformed: Array) -> Array:
    """The same with a kernel `[points, D, C]`, as the left side of the product.

    On processors a product first rearranges its right side, here the smaller one. Without the
    barrier XLA exchanges the sides to save the transpose.
    """
    found = lax.dot_general(transformed, tiles, (((2,), (2,)), ((0,), (0,))))
    return lax.optimization_barrier(found).swapaxes(1, 2)


def _convolve(
    x: Array,
    transformed: Array,
    multiply: Callable[[Array, Array], Array],
    bordered: bool = False,
) -> Array:
    """`multiply` gives the products of tiles `[points, tiles, C]` with the kernel."""
    transforms = BY_POINTS[transformed.shape[0]]
    border = transforms.border
    batch, height, width, _ = x.shape
    height -= 2 * border if bordered else 0
    plan = _Plan(batch, height, width)

    def step(window):
        products = multiply(_tiles(window, transforms.window), transformed)
        return _untile(products, transforms.output, len(window), plan.rows, plan.columns)

    def images(group):
        padded = plan.pad(group, border, 0 if bordered else border)
        if plan.blocks == 1:
            return step(padded)[:, :height, :width]
        blocks = jnp.arange(plan.blocks)
        found = lax.map(lambda block: step(plan.block(padded, block, border)), blocks)
        return found.reshape(1, -1, *found.shape[3:])[:, :height, :width]

    if plan.group == batch:
        return images(x)
    groups = x.reshape(batch // plan.group, plan.group, *x.shape[1:])
    return lax.map(images, groups).reshape(batch, height, width, -1)


@functools.partial(jax.jit, static_argnames="side")
def kernel_gradient(x: Array, gradient: Array, side: int) -> Array:
    """Of that convolution's kernel: `[B, H, W, C]` and `[B, H, W, D]` to `[side, side, C, D]`."""
    transforms = BY_SIDE[side]
    border = transforms.border
    batch, height, width, channels = x.shape
    plan = _Plan(batch, height, width)

    def step(total, window, outputs):
        inputs, outputs = _tiles(window, transforms.window), _tiles(outputs, transforms.output.T)
        return total + lax.dot_general(inputs, outputs, (((1,), (1,)), ((0,), (0,))))

    def images(total, pair):
        padded, outputs = plan.pad(pair[0], border, border), plan.pad(pair[1], 0, 0)
        if plan.blocks == 1:
            return step(total, padded, outputs), None

        def rows(block, total):
            return step(total, plan.block(padded, block, border), plan.block(outputs, block, 0))

        return lax.fori_loop(0, plan.blocks, rows, total), None

    total = jnp.zeros((transforms.points, channels, gradient.shape[-1]), x.dtype)
    if plan.group == batch:
        total, _ = images(total, (x, gradient))
    else:
        groups = (batch // plan.group, plan.group)
        pairs = [a.reshape(*groups, *a.shape[1:]) for a in (x, gradient)]
        total, _ = lax.scan(images, total, tuple(pairs))
    found = _product_of(_both_ways(transforms.kernel).T, total)
    return found.reshape(side, side, *found.shape[1:])


def _both_ways(matrix: np.ndarray) -> np.ndarray:
    """Rows and columns of `[w, k]` at once, `[w w, k k]`: columns by rows, as `_tiles` has them."""
    return np.einsum("ri,cj->crij", matrix, matrix).reshape(len(matrix) ** 2, -1)


def _product_of(matrix: np.ndarray, kernels: Array) -> Array:
    """`[n, m]` times `[..., C, D]` of m kernels: `[n, C, D]`.

    One product is quick to compile, and no image waits for it.
    """
    flat = kernels.reshape(matrix.shape[1], -1)
    found = jnp.dot(np.asarray(matrix, flat.dtype), flat, precision=lax.Precision.HIGHEST)
    return found.reshape(len(matrix), *kernels.shape[-2:])


class _Plan:
    """How a batch is cut into steps: several images each, or blocks of the rows of one."""

    def __init__(self, batch: int, height: int, width: int):
        down, self.columns = -(-height // TILE), -(-width // TILE)
        most = max(1, TILES_PER_STEP // (down * self.columns))
        # Not 2 or 3: XLA unrolls loops so short, and takes five times as long to compile them.
        group = 4 if most in (2, 3) else most
        self.group = next(n for n in range(group, 0, -1) if batch % n == 0 and n not in (2, 3))
        self.blocks = max(1, round(down * self.columns / TILES_PER_STEP))
        self.rows = -(-down // self.blocks)  # of tiles, a block

    def pad(self, x: Array, border: int, above: int) -> Array:
        """Images `[B, H, W, C]` with zeros up to whole tiles, and a border of zeros around.

        `above`: how much of the border the rows still lack.
        """
        height, width = self.blocks * self.rows * TILE, self.columns * TILE
        after = (height + 2 * border - above - x.shape[1], width - x.shape[2] + border)
        return jnp.pad(x, ((0, 0), (above, after[0]), (border, after[1]), (0, 0)))

    def block(self, padded: Array, number: Array, border: int) -> Array:
        """The rows of a block, with the border on either side."""
        rows = self.rows * TILE
        return lax.dynamic_slice_in_dim(padded, number * rows, rows + 2 * border, axis=1)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """`matrix @ parts` as sums: XLA is slow at products with so small a matrix."""
    found = []
    for row in matrix:
        total = None
        for factor, part in zip(row, parts, strict=True):
            if not factor:
                continue
            # Signs are kept out of the factors: every operation left out is one less to compile.
            own = factor if total is None else abs(factor)
            term = part if own == 1 else part * np.asarray(own, part.dtype)
            if total is None:
                total = term
            else:
                total = total - term if factor < 0 else total + term
        found.append(total)
    return found


def _tiles(x: Array, matrix: np.ndarray) -> Array:
    """Windows in steps of 4, transformed on both sides: `[B, h, w, C]` to `[points, tiles, C]`.

    A window is as wide as the matrix.
    """
    size, channels = matrix.shape[1], x.shape[-1]

    def windows(x, axis):
        last = x.shape[axis] - size + 1
        return [lax.slice_in_dim(x, i, i + last, TILE, axis) for i in range(size)]

    rows = jnp.stack(_combine(matrix, windows(x, 1)))
    return jnp.stack(_combine(matrix, windows(rows, 3))).reshape(len(matrix) ** 2, -1, channels)


def _untile(products: Array, matrix: np.ndarray, batch: int, down: int, across: int) -> Array:
    """Tiles transformed back: `[points, tiles, D]` to `[B, 4 down, 4 across, D]`."""
    size = matrix.shape[1]
    square = products.reshape(size, size, batch, down, across, -1)
    rows = jnp.stack(_combine(matrix, [square[:, i] for i in range(size)]), axis=3)
    both = jnp.stack(_combine(matrix, [rows[j] for j in range(size)]), axis=4)
    return both.reshape(batch, down * TILE, across * TILE, -1)
