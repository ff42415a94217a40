"""The coreset against plain greedy k-centre in numpy."""

import jax
import numpy as np
import pytest

from imvad_jax.ops import coreset


def plain_greedy(features, starts, picks):
    distances = np.mean([np.linalg.norm(features - features[s], axis=1) for s in starts], axis=0)
    chosen = []
    for _ in range(picks):
        row = int(distances.argmax())
        chosen.append(row)
        distances = np.minimum(distances, np.linalg.norm(features - features[row], axis=1))
    return chosen


def test_same_picks_as_plain_greedy_and_padding_ignored():
    features = np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32)
    padded = np.concatenate([features, np.full((20, 8), 100, np.float32)])
    key = jax.random.key(3)
    starts = jax.random.randint(key, (coreset.STARTS,), 0, 500)
    reported = []
    chosen = coreset.k_center(padded, 500, 60, key, progress=reported.append, chunk=25)
    assert chosen.tolist() == plain_greedy(features, np.asarray(starts), 60)
    assert reported == [25, 25, 10]


def test_same_picks_over_many_rounds_and_blocks():
    """More rows than candidates and than a block, more picks than a round; far from the origin."""
    count = 2 * coreset.ROWS + 100
    features = np.random.default_rng(1).normal(30, 1, size=(count, 6)).astype(np.float32)
    key = jax.random.key(0)
    starts = jax.random.randint(key, (coreset.STARTS,), 0, count)
    picks = coreset.ROUND + 200
    chosen = coreset.k_center(features, count, picks, key)
    assert chosen.tolist() == plain_greedy(features, np.asarray(starts), picks)


def test_picks_are_distinct_among_duplicates():
    features = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    chosen = coreset.k_center(features, 20, 20, jax.random.key(0))
    assert sorted(chosen.tolist()) == list(range(20))
    # The first four picks cover the four places.
    assert len({row // 5 for row in chosen.tolist()[:4]}) == 4


@pytest.mark.parametrize("picks", [0, 11])
def test_impossible_number_of_picks(picks):
    with pytest.raises(ValueError, match=str(picks)):
        coreset.k_center(np.zeros((10, 2), np.float32), 10, picks, jax.random.key(0))
