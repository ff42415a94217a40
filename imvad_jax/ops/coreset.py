"""Greedy k-centre coreset: repeatedly select the row that is farthest from all selected rows.

The plain loop reads all rows for every selection and is limited by memory bandwidth. Here rows are
selected in rounds. Distances only shrink, so as long as the farthest of a few candidates is farther
than every other row was at the start of the round, it is the farthest of all, and only candidates
have to be kept up to date. All other rows meet the selected rows at the end of the round, in one
matrix product.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

STARTS = 10  # random rows whose mean distance anchors the first pick (official PatchCore)
CANDIDATES = 4096  # of a round: their rows fit the cache
ROUND = 512  # picks of a round at most
COLUMNS = 64  # picks a matrix product
ROWS = 8192  # rows a matrix product


def _distance(features: Array, row: Array) -> Array:
    # Direct differences: no cancellation.
    return jnp.sqrt(jnp.sum((features - row) ** 2, -1))


@jax.jit
def draw_starts(key: Array, count: Array) -> Array:
    """`STARTS` random rows of the first `count`, int32 `[STARTS]`."""
    return jax.random.randint(key, (STARTS,), 0, count, jnp.int32)


@jax.jit
def _start(features: Array, count: Array, starts: Array) -> tuple[Array, Array]:
    """Returns the centred features, and the mean distance `[N]` to the rows `starts`.

    Rows beyond the first `count` get the distance -inf.
    """
    used = jnp.arange(features.shape[0]) < count
    total = lax.fori_loop(
        0,
        STARTS,
        lambda i, total: total + _distance(features, features[starts[i]]),
        jnp.zeros(features.shape[0], features.dtype),
    )
    # Distances by expansion cancel unless the rows are centred.
    mean = jnp.sum(jnp.where(used[:, None], features, 0), 0) / count
    return features - mean, jnp.where(used, total / STARTS, -jnp.inf)


def _meet(features: Array, distances: Array, picked: Array, count: Array) -> Array:
    """Updates `distances` `[N]` with the first `count` rows of `picked` `[ROUND, D]` as centres."""
    size = min(ROWS, features.shape[0])
    offsets = jnp.where(jnp.arange(ROUND) < count, jnp.sum(picked * picked, -1), jnp.inf)

    def block(i, distances):
        # The last block slides back to stay inside; a minimum may be taken twice.
        start = jnp.minimum(i * size, features.shape[0] - size)
        rows = lax.dynamic_slice_in_dim(features, start, size)

        def columns(j, least):
            some = lax.dynamic_slice_in_dim(picked, j * COLUMNS, COLUMNS)
            product = jnp.matmul(rows, -2 * some.T, precision=lax.Precision.HIGHEST)
            squares = product + lax.dynamic_slice_in_dim(offsets, j * COLUMNS, COLUMNS)
            return jnp.minimum(least, squares.min(-1))

        least = lax.fori_loop(
            0, -(-count // COLUMNS), columns, jnp.full(size, jnp.inf, features.dtype)
        )
        new = jnp.sqrt(jnp.maximum(least + jnp.sum(rows * rows, -1), 0))
        old = lax.dynamic_slice_in_dim(distances, start, size)
        return lax.dynamic_update_slice_in_dim(distances, jnp.minimum(old, new), start, 0)

    return lax.fori_loop(0, -(-features.shape[0] // size), block, distances)


@partial(jax.jit, donate_argnums=(1, 2))
def _pick(features: Array, distances: Array, chosen: Array, start: Array, stop: Array):
    """Selects rows number `start` to `stop`; returns the new distances and `chosen`."""
    size = min(CANDIDATES, features.shape[0])

    def one_round(carry):
        distances, chosen, first = carry
        farthest, rows = lax.top_k(distances, size)
        # In their own order, so that ties go to the lower row number.
        rows = jnp.sort(rows)
        candidates, others = features[rows], farthest[-1]

        def certain(carry):
            near, _, _, done = carry
            in_round = done - first
            # The first is certain even where all distances are equal.
            return ((near.max() > others) | (in_round == 0)) & (in_round < ROUND) & (done < stop)

        def pick(carry):
            near, picked, chosen, done = carry
            best = jnp.argmax(near)
            row = candidates[best]
            near = jnp.minimum(near, _distance(candidates, row))
            return (
                near.at[best].set(-jnp.inf),  # never again, also among exact duplicates
                picked.at[done - first].set(row),
                chosen.at[done].set(rows[best].astype(chosen.dtype)),
                done + 1,
            )

        picked = jnp.zeros((ROUND, features.shape[1]), features.dtype)
        near, picked, chosen, done = lax.while_loop(
            certain, pick, (distances[rows], picked, chosen, first)
        )
        distances = _meet(features, distances, picked, done - first)
        return distances.at[rows].set(near), chosen, done

    distances, chosen, _ = lax.while_loop(
        lambda carry: carry[2] < stop, one_round, (distances, chosen, start)
    )
    return distances, chosen


def k_center(
    features: Array,
    count: int,
    picks: int,
    key: Array,
    *,
    progress: Callable[[int], None] = lambda done: None,
    chunk: int = 1024,
) -> np.ndarray:
    """Row numbers `[picks]` of a greedy k-centre coreset of the first `count` rows of `[N, D]`.

    Source: PatchCore (Roth et al., CVPR 2022), algorithm 1, started as the official code does: the
    first pick is the row with the largest mean distance to ten random rows. Picks are distinct, and
    those of the plain greedy loop but for ties within rounding. `progress(number of new picks)` is
    called after every `chunk` of them.

    Raises:
      ValueError: `picks` is not in 1..`count`.
    """
    if not 1 <= picks <= count:
        raise ValueError(f"picks must be in 1..{count}, got {picks}")
    features, distances = _start(features, count, draw_starts(key, count))
    # The array of picks is as long as the features, so that no shape depends on the ratio.
    chosen = jnp.zeros(features.shape[0], jnp.int32)
    for start in range(0, picks, chunk):
        stop = min(start + chunk, picks)
        distances, chosen = _pick(features, distances, chosen, start, stop)
        chosen.block_until_ready()
        progress(stop - start)
    return np.asarray(chosen)[:picks]  # cut on the host: no program for each number of picks
