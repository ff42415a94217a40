"""Ranks anomalous scores among the good ones; all metrics are computed from this ranking.

Good scores are many and have no weights, so they are sorted once, in runs shared by threads; each
distinct anomalous score is then placed in every run by bisection. Between two neighbouring
anomalous scores only false positives are added, so the curves need no further points: nothing is
approximated.
"""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

RUN = 2**18  # good scores sorted together: they stay in the cache


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Distinct anomalous scores in ascending order, and what lies at, above and below them.

    Attributes:
      good: [N] good scores, in an order of their own.
      threshold: [K] distinct anomalous scores, ascending.
      count: [K] int, anomalous scores equal to the threshold.
      weight: [K] float64, the sum of their weights.
      below: [K] int, good scores < threshold.
      up_to: [K] int, good scores <= threshold.
    """

    good: np.ndarray
    threshold: np.ndarray
    count: np.ndarray
    weight: np.ndarray
    below: np.ndarray
    up_to: np.ndarray

    @property
    def constant(self) -> bool:
        """True if all scores, good and anomalous, are one value (neither set may be empty)."""
        return len(self.threshold) == 1 and bool(self.up_to[0] - self.below[0] == len(self.good))

    @property
    def true_positives(self) -> np.ndarray:
        """[K] int: anomalous scores >= threshold."""
        return np.cumsum(self.count[::-1])[::-1]

    @property
    def false_positives(self) -> np.ndarray:
        """[K] int: good scores >= threshold."""
        return len(self.good) - self.below


def rank(good: np.ndarray, anomalous: np.ndarray, weights: np.ndarray | None = None) -> Ranking:
    """Ranks finite scores of one dtype.

    Args:
      good: [N]; reordered in place, to hold one copy only.
      anomalous: [P].
      weights: [P] float64, one for each anomalous score; 1 if not given.
    """
    if weights is None:
        anomalous = np.sort(anomalous)
    else:
        order = np.argsort(anomalous)
        anomalous, weights = anomalous[order], weights[order]
        del order
    starts = np.flatnonzero(np.r_[True, anomalous[1:] != anomalous[:-1]][: len(anomalous)])
    threshold = anomalous[starts]
    count = np.diff(starts, append=len(anomalous))
    if weights is None:
        weight = count.astype(np.float64)
    else:
        weight = np.add.reduceat(weights, starts) if len(starts) else weights
    below, up_to = _place(good, threshold)
    return Ranking(good, threshold, count, weight, below, up_to)


def _place(good: np.ndarray, threshold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of `good` `[N]` lie below and at most at each threshold `[K]`; sorts it in runs."""

    def place(run):
        run.sort()
        below = np.searchsorted(run, threshold, side="left")
        up_to = below.copy()
        # A second bisection only where a good score ties.
        tied = run[np.minimum(below, len(run) - 1)] == threshold
        up_to[tied] = np.searchsorted(run, threshold[tied], side="right")
        return below, up_to

    below, up_to = np.zeros((2, len(threshold)), np.int64)
    runs = _runs(good, len(threshold))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(place, runs) if len(runs) > 1 else map(place, runs):
            below += found[0]
            up_to += found[1]
    return below, up_to


def _runs(good: np.ndarray, thresholds: int) -> list[np.ndarray]:
    """Views of the scores: one that fits the cache each, but fewer where each costs as many
    bisections as it spares comparisons; one a core at least."""
    if not len(good):
        return []
    most = -(-len(good) // RUN)
    count = max(len(good) // (16 * thresholds + 1), os.cpu_count() or 1)
    return np.array_split(good, min(count, most))


def auroc(ranking: Ranking) -> float:
    """Returns P(anomalous > good) + P(tie) / 2, the area under the ROC curve.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 1982.
    """
    # Half-credits as integers: exact up to 2^63, more than 10^9 pixels of each class.
    halves = int(np.dot(ranking.count, ranking.below + ranking.up_to))
    return halves / (2 * int(ranking.count.sum()) * len(ranking.good))


def average_precision(ranking: Ranking) -> float:
    """Returns the sum over distinct thresholds of (increase in recall) x precision, stepwise.

    No interpolation and no trapezoid, as scikit-learn's `average_precision_score` defines it.
    Thresholds at which only good scores lie add no recall and so no term.
    """
    hits = ranking.true_positives
    precision = hits / (hits + ranking.false_positives)
    return float(np.dot(ranking.count, precision) / hits[0])
