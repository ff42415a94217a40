"""Exact nearest neighbours as matrix products in blocks, never `[queries, bank, dim]`."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops import loops, resample
from imvad_jax.ops.sums import total

HIGHEST = lax.Precision.HIGHEST
BLOCK = 4096  # bank rows a matrix product: 1024 queries x 4096 rows stay in the cache
SMALL_BLOCK = 256  # where rows beyond the valid ones are left out
ROWS_WITH_NUMBERS = 512  # where the nearest of every block are numbered


def _rows(array: Array, start: int | Array, count: int) -> Array:
    if isinstance(start, int):  # in programs without loops; converters fail at batched dynamic ones
        return array[start : start + count]
    return lax.dynamic_slice_in_dim(array, start, count)


def _scan_bank(bank: Array, valid: Array | None, block: int, initial, merge):
    """Folds `merge(carry, rows [block, D], start, usable [block])` over the blocks of the bank."""
    count = bank.shape[0]
    block = min(block, count)

    def step(i, carry):
        # The last block slides back to stay inside; its rows already seen are masked.
        smaller = min if isinstance(i, int) else jnp.minimum
        start = smaller(i * block, count - block)
        rows = _rows(bank, start, block)
        usable = start + jnp.arange(block) >= i * block
        if valid is not None:
            usable &= _rows(valid, start, block)
        return merge(carry, rows, start, usable)

    return loops.fold(-(-count // block), step, initial)


def _squared_distances(queries: Array, rows: Array, usable: Array) -> Array:
    """`|r|^2 - 2 q.r` `[Q, block]`: the squared distance less `|q|^2`; unusable rows are inf."""
    product = jnp.matmul(queries, rows.T, precision=HIGHEST)
    norms = jnp.where(usable, jnp.sum(rows * rows, -1), jnp.inf)
    return norms - 2 * product


def nearest_squared_distance(
    queries: Array, bank: Array, valid: Array | None = None, block: int = BLOCK
) -> Array:
    """Squared Euclidean distance `[Q]` from each query `[Q, D]` to its nearest bank row `[M, D]`.

    `valid` `[M]` masks padding rows. Distances by expansion cancel in float32: centre both sides
    on the mean of the bank first. Clamped at 0.
    """

    def merge(best, rows, start, usable):
        return jnp.minimum(best, jnp.min(_squared_distances(queries, rows, usable), -1))

    best = jnp.full(queries.shape[0], jnp.inf, queries.dtype)
    best = _scan_bank(bank, valid, block, best, merge)
    return jnp.maximum(best + jnp.sum(queries * queries, -1), 0)


def nearest_of_maps(
    maps: Sequence[Array], bank: Array, norms: Array, count: Array, block: int = SMALL_BLOCK
) -> Array:
    """As `nearest_squared_distance` of queries that are put together from maps: `[H * W]`.

    A query is what the maps hold at its position, one after the other; smaller maps are enlarged to
    the first one, bilinearly. Products are linear in the queries, so those of a smaller map are
    computed at its own size and enlarged: with one map of half the size, 3/8 of the products are
    spared. Blocks of the bank beyond `count` are left out. For processors.

    Args:
      maps: `[H, W, D]`, then `[h, w, D']` with h <= H and w <= W.
      bank: `[M, D + D' + ...]`, of which the first `count` rows count.
      norms: `[M]`, the squared norms of its rows.
    """
    size, block = maps[0].shape[:2], min(block, bank.shape[0])
    ends = np.cumsum([0] + [part.shape[-1] for part in maps])
    norms = jnp.where(jnp.arange(bank.shape[0]) < count, norms, jnp.inf)

    def step(i, best):
        # The last block slides back to stay inside; the minimum may see a row twice.
        rows = lax.dynamic_slice_in_dim(bank, i * block, block)
        product = _products(maps, [rows[:, a:b] for a, b in itertools.pairwise(ends)])
        usable = lax.dynamic_slice_in_dim(norms, i * block, block)
        return jnp.minimum(best, jnp.min(usable - 2 * product, -1))

    best = jnp.full(size, jnp.inf, maps[0].dtype)
    best = lax.fori_loop(0, -(-count // block), step, best)
    squares = sum(jnp.sum(_enlarged(part, size) ** 2, -1) for part in maps)
    return jnp.maximum(best + squares, 0).reshape(-1)


def nearest_rows_of_maps(
    maps: Sequence[Array],
    factors: Sequence[Array],
    norms: Array,
    k: int,
    block: int = ROWS_WITH_NUMBERS,
) -> Array:
    """Numbers `[H * W, k]` of the nearest rows of a bank, the nearest first.

    Of queries whose products with the rows are sums over maps, `_products`, and a constant of each
    row. That is so of linear functions of the maps. Ties go to the lower number.

    Args:
      maps: `[H, W, C]`, then `[h, w, C']`.
      factors: `[M, C]`, `[M, C']`, of all rows of the bank for each map.
      norms: `[M]`, the squared norms of the rows less twice their constants.
      k: At most M.
    """
    size, count = maps[0].shape[:2], norms.shape[0]
    block = min(block, count)

    def step(i, carry):
        # The last block slides back to stay inside; its rows already seen are infinitely far.
        smaller = min if isinstance(i, int) else jnp.minimum
        start = smaller(i * block, count - block)
        numbers = start + jnp.arange(block)
        usable = jnp.where(numbers >= i * block, _rows(norms, start, block), jnp.inf)
        product = _products(maps, [_rows(part, start, block) for part in factors])
        distances = (usable - 2 * product).reshape(-1, block)
        # The few of this block first: nothing is put beside the whole of it.
        found, place = lax.top_k(-distances, min(k, block))
        return _smallest(carry, (-found, numbers[place]), k)

    best = jnp.full((size[0] * size[1], k), jnp.inf, norms.dtype)
    return loops.fold(-(-count // block), step, (best, jnp.full(best.shape, -1, jnp.int32)))[1]


def _smallest(one: tuple[Array, Array], other: tuple[Array, Array], k: int):
    """The k smallest distances `[Q, k]`, ascending, and their numbers; ties go to the first."""
    distances = jnp.concatenate([one[0], other[0]], 1)
    # Loops count in int64 under jax_enable_x64, of which the carried numbers know nothing.
    numbers = jnp.concatenate([one[1], other[1].astype(one[1].dtype)], 1)
    best, place = lax.top_k(-distances, k)
    return -best, jnp.take_along_axis(numbers, place, 1)


def _products(maps: Sequence[Array], factors: Sequence[Array]) -> Array:
    """The sum `[H, W, M]` of the products of maps `[h, w, C]` with factors `[M, C]`.

    Each is enlarged bilinearly to the first map's size. Split by rows, maps that are not of that
    size come with a row of the neighbours on either side.
    """
    size = maps[0].shape[:2]
    return total([
        _enlarged(jnp.einsum("hwd,md->hwm", part, factor, precision=HIGHEST), size)
        for part, factor in zip(maps, factors, strict=True)
    ])  # fmt: skip


def _enlarged(part: Array, size: Sequence[int]) -> Array:
    return part if part.shape[:2] == tuple(size) else resample.resize_leading(part, size)


def nearest(
    queries: Array, bank: Array, k: int, valid: Array | None = None, block: int = BLOCK
) -> tuple[Array, Array]:
    """The `k` nearest bank rows: squared distances `[Q, k]`, ascending, and row numbers `[Q, k]`.

    Ties go to the lower row number. Places beyond the number of valid rows hold `inf` and -1.
    """
    block = min(block, bank.shape[0])

    def merge(carry, rows, start, usable):
        new = _squared_distances(queries, rows, usable)
        numbers = jnp.broadcast_to(start + jnp.arange(block), new.shape)
        return _smallest(carry, (new, numbers), k)

    initial = (
        jnp.broadcast_to(jnp.asarray(jnp.inf, queries.dtype), (queries.shape[0], k)),
        jnp.broadcast_to(jnp.int32(-1), (queries.shape[0], k)),
    )
    distances, numbers = _scan_bank(bank, valid, block, initial, merge)
    found = jnp.isfinite(distances)
    distances = jnp.maximum(distances + jnp.sum(queries * queries, -1, keepdims=True), 0)
    return jnp.where(found, distances, jnp.inf), jnp.where(found, numbers, -1)
