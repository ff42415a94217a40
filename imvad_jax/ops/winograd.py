"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3), for processors.

Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, arXiv 1509.09308,
section 4.3. A tile of 4x4 outputs takes 36 products for each pair of channels, where the definition
takes 144: the windows of 6x6 inputs and the kernel are transformed, multiplied, summed over the
channels and transformed back. What is left are 36 matrix products. In float32 the result is off by
about 1e-5 of its largest value; narrower types are not computed so.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

TILE = 4  # outputs a side
WINDOW = 6  # inputs a side
POINTS = WINDOW * WINDOW
# Tiles per step: its output stays in the cache, and its products are large enough.
TILES_PER_STEP = 128
# The paper's B^T, G and A^T, of the points 0, 1, -1, 2, -2 and infinity.
INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
OUTPUT = np.array(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
)


@jax.jit
def transform_kernel(kernel: Array) -> Array:
    """A kernel `[3, 3, C, D]` as `convolve` takes it, `[36, C, D]`."""
    return _product_of(_both_ways(KERNEL), kernel.reshape(9, *kernel.shape[2:]))


@jax.jit
def input_gradient(gradient: Array, kernel: Array) -> Array:
    """Of the convolution with `[3, 3, C, D]`: `[B, H, W, D]` to `[B, H, W, C]`.

    A convolution with the kernel turned around and its channels exchanged.
    """
    turned = _both_ways(KERNEL[:, ::-1])
    transformed = _product_of(turned, kernel.reshape(9, *kernel.shape[2:]))
    return _convolve(gradient, transformed, functools.partial(_products, contracted=2))


@functools.partial(jax.jit, static_argnames="bordered")
def convolve(x: Array, transformed: Array, bordered: bool = False) -> Array:
    """The convolution of stride 1 with a border of one zero: `[B, H, W, C]` to `[B, H, W, D]`.

    `transformed` is what `transform_kernel` gave, of the dtype of `x`. `bordered`: the rows have
    their border already, `[B, H + 2, W, C]`.
    """
    return _convolve(x, transformed, _products, 0 if bordered else 1)


@jax.jit
def transform_outputs(kernel: Array) -> Array:
    """A kernel `[3, 3, C, D]` as `convolve_outputs` takes it, `[36, D, C]`."""
    return transform_kernel(kernel).swapaxes(1, 2)


@jax.jit
def convolve_outputs(x: Array, transformed: Array) -> Array:
    """As `convolve`, with a kernel `[36, D, C]`: for few tiles and many channels.

    There the products take as long as it takes to read the kernel.
    """
    return _convolve(x, transformed, _products_of_few)


def _products(tiles: Array, transformed: Array, contracted: int = 1) -> Array:
    """`[36, tiles, C]` to `[36, tiles, D]`; C is the axis `contracted` of the kernel."""
    return lax.dot_general(tiles, transformed, (((2,), (contracted,)), ((0,), (0,))))


def _products_of_few(tiles: Array, transformed: Array) -> Array:
    """The same with a kernel `[36, D, C]`, as the left side of the product.

    On processors a product first rearranges its right side, here the smaller one. Without the
    barrier XLA exchanges the sides to save the transpose.
    """
    found = lax.dot_general(transformed, tiles, (((2,), (2,)), ((0,), (0,))))
    return lax.optimization_barrier(found).swapaxes(1, 2)


def _convolve(
    x: Array, transformed: Array, multiply: Callable[[Array, Array], Array], above: int = 1
) -> Array:
    """`multiply` gives the products of tiles `[36, tiles, C]` with the kernel.

    `above` are the rows of zeros that `x` still needs before its first and after its last.
    """
    batch, height, width, _ = x.shape
    height -= 2 * (1 - above)
    plan = _Plan(batch, height, width)

    def step(window):
        products = multiply(_tiles(window, INPUT), transformed)
        return _untile(products, len(window), plan.rows, plan.columns)

    def images(group):
        padded = plan.pad(group, 1, above)
        if plan.blocks == 1:
            return step(padded)[:, :height, :width]
        found = lax.map(lambda block: step(plan.block(padded, block, 2)), jnp.arange(plan.blocks))
        return found.reshape(1, -1, *found.shape[3:])[:, :height, :width]

    if plan.group == batch:
        return images(x)
    groups = x.reshape(batch // plan.group, plan.group, *x.shape[1:])
    return lax.map(images, groups).reshape(batch, height, width, -1)


@jax.jit
def kernel_gradient(x: Array, gradient: Array) -> Array:
    """Of that convolution's kernel: `[B, H, W, C]` and `[B, H, W, D]` to `[3, 3, C, D]`."""
    batch, height, width, channels = x.shape
    plan = _Plan(batch, height, width)

    def step(total, window, outputs):
        inputs, outputs = _tiles(window, INPUT), _tiles(outputs, OUTPUT.T)
        return total + lax.dot_general(inputs, outputs, (((1,), (1,)), ((0,), (0,))))

    def images(total, pair):
        padded, outputs = plan.pad(pair[0], 1), plan.pad(pair[1], 0)
        if plan.blocks == 1:
            return step(total, padded, outputs), None

        def rows(block, total):
            return step(total, plan.block(padded, block, 2), plan.block(outputs, block, 0))

        return lax.fori_loop(0, plan.blocks, rows, total), None

    total = jnp.zeros((POINTS, channels, gradient.shape[-1]), x.dtype)
    if plan.group == batch:
        total, _ = images(total, (x, gradient))
    else:
        groups = (batch // plan.group, plan.group)
        pairs = [a.reshape(*groups, *a.shape[1:]) for a in (x, gradient)]
        total, _ = lax.scan(images, total, tuple(pairs))
    found = _product_of(_both_ways(KERNEL).T, total)
    return found.reshape(3, 3, *found.shape[1:])


def _both_ways(matrix: np.ndarray) -> np.ndarray:
    """Rows and columns at once, `[36, 9]`; the 36 are columns by rows, as `_tiles` has them."""
    return np.einsum("ri,cj->crij", matrix, matrix).reshape(POINTS, -1)


def _product_of(matrix: np.ndarray, kernels: Array) -> Array:
    """`[n, m]` times `[m, C, D]` as one product: quick to compile, and no image waits for it."""
    flat = kernels.reshape(len(kernels), -1)
    found = jnp.dot(np.asarray(matrix, flat.dtype), flat, precision=lax.Precision.HIGHEST)
    return found.reshape(len(matrix), *kernels.shape[1:])


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

    def pad(self, x: Array, border: int, above: int | None = None) -> Array:
        """Images `[B, H, W, C]` with zeros up to whole tiles, and a border of zeros around.

        `above`: how much of the border the rows still lack; None: all of it.
        """
        above = border if above is None else above
        height, width = self.blocks * self.rows * TILE, self.columns * TILE
        after = (height + 2 * border - above - x.shape[1], width - x.shape[2] + border)
        return jnp.pad(x, ((0, 0), (above, after[0]), (border, after[1]), (0, 0)))

    def block(self, padded: Array, number: Array, border: int) -> Array:
        """The rows of a block, with the `border` rows after it."""
        rows = self.rows * TILE
        return lax.dynamic_slice_in_dim(padded, number * rows, rows + border, axis=1)


def _combine(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """`matrix @ parts` as sums: XLA is slow at products with so small a matrix."""
    found = []
    for row in matrix:
        terms = [
            part * np.asarray(factor, part.dtype)
            for factor, part in zip(row, parts, strict=True)
            if factor
        ]
        found.append(functools.reduce(jnp.add, terms))
    return found


def _tiles(x: Array, matrix: np.ndarray) -> Array:
    """Windows in steps of 4, transformed on both sides: `[B, h, w, C]` to `[36, tiles, C]`.

    A window is as wide as the matrix.
    """
    size, channels = matrix.shape[1], x.shape[-1]

    def windows(x, axis):
        last = x.shape[axis] - size + 1
        return [lax.slice_in_dim(x, i, i + last, TILE, axis) for i in range(size)]

    rows = jnp.stack(_combine(matrix, windows(x, 1)))
    return jnp.stack(_combine(matrix, windows(rows, 3))).reshape(POINTS, -1, channels)


def _untile(products: Array, batch: int, down: int, across: int) -> Array:
    """Tiles transformed back: `[36, tiles, D]` to `[B, 4 down, 4 across, D]`."""
    square = products.reshape(WINDOW, WINDOW, batch, down, across, -1)
    rows = jnp.stack(_combine(OUTPUT, [square[:, i] for i in range(WINDOW)]), axis=3)
    both = jnp.stack(_combine(OUTPUT, [rows[j] for j in range(WINDOW)]), axis=4)
    return both.reshape(batch, down * TILE, across * TILE, -1)
