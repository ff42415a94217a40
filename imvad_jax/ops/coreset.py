"""Greedy k-centre coreset: pick the row that is farthest from all rows picked so far."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

STARTS = 10  # random rows whose mean distance anchors the first pick (official PatchCore)


def _distance(features: Array, row: Array) -> Array:
    # Direct differences: no cancellation, and XLA fuses them into one pass over the features.
    return jnp.sqrt(jnp.sum((features - row) ** 2, -1))


@jax.jit
def initial_distances(features: Array, count: Array, key: Array) -> Array:
    """Mean distance `[N]` to `STARTS` random rows of the first `count`; padding rows get -inf."""
    starts = jax.random.randint(key, (STARTS,), 0, count)
    total = lax.fori_loop(
        0,
        STARTS,
        lambda i, total: total + _distance(features, features[starts[i]]),
        jnp.zeros(features.shape[0], features.dtype),
    )
    return jnp.where(jnp.arange(features.shape[0]) < count, total / STARTS, -jnp.inf)


@partial(jax.jit, donate_argnums=(1, 2))
def _pick(features: Array, distances: Array, chosen: Array, start: Array, stop: Array):
    def step(i, carry):
        distances, chosen = carry
        row = jnp.argmax(distances)
        distances = jnp.minimum(distances, _distance(features, features[row]))
        # A picked row can't be picked again, also among exact duplicates at distance 0.
        return distances.at[row].set(-jnp.inf), chosen.at[i].set(row.astype(chosen.dtype))

    return lax.fori_loop(start, stop, step, (distances, chosen))


def k_center(
    features: Array,
    count: int,
    picks: int,
    key: Array,
    progress: Callable[[int], None] = lambda done: None,
    chunk: int = 256,
) -> np.ndarray:
    """Row numbers `[picks]` of a greedy k-centre coreset of the first `count` rows of `[N, D]`.

    Source: PatchCore (Roth et al., CVPR 2022), algorithm 1, started as the official code does: the
    first pick is the row with the largest mean distance to ten random rows. Picks are distinct.
    Runs as one compiled loop; `progress(number of new picks)` is called between chunks.

    Raises:
      ValueError: `picks` is not in 1..`count`.
    """
    if not 1 <= picks <= count:
        raise ValueError(f"picks must be in 1..{count}, got {picks}")
    distances = initial_distances(features, count, key)
    # The array of picks is as long as the features, so that no shape depends on the ratio.
    chosen = jnp.zeros(features.shape[0], jnp.int32)
    for start in range(0, picks, chunk):
        stop = min(start + chunk, picks)
        distances, chosen = _pick(features, distances, chosen, start, stop)
        chosen.block_until_ready()
        progress(stop - start)
    return np.asarray(chosen)[:picks]  # cut on the host: no program for each number of picks
