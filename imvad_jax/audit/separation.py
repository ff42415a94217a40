"""Whether a number alone tells two sets of images apart: AUROC, interval, corrected p value."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from scipy import special

LEAST = 3  # images of each set; fewer tell nothing
LIMIT, RISK = 0.8, 0.01  # when a number is said to separate: see `Separation.separates`
_Z = 1.959964  # of a 95 % interval, two-sided
_EXACT = 8  # values of the smaller set up to which the p value is exact
_STEPS = 30  # of a bisection: to the ninth digit


class Separation(NamedTuple):
    """How one number separates a first set of images from a second one.

    `auroc` is the probability that an image of the second set has the larger value, ties counted
    half: 1 and 0 both separate perfectly.
    """

    name: str
    auroc: float
    low: float  # of its 95 % interval
    high: float
    p: float  # two-sided, corrected for the numbers tried
    first: float  # median of the first set
    second: float  # median of the second set

    @property
    def strength(self) -> float:
        """The distance of the AUROC from one half, from 0 to 1/2."""
        return abs(self.auroc - 0.5)

    @property
    def separates(self) -> bool:
        """Whether the number alone would pass for a detector.

        Even the end of the interval that lies nearer to one half is `LIMIT` (.8) or stronger: of
        five pairs of images four are put in order by it. And the corrected p value lies below
        `RISK`: of a hundred sets that do not differ, one at most is said to.
        """
        return self.p < RISK and (self.low >= LIMIT or self.high <= 1 - LIMIT)

    def as_dict(self) -> dict:
        """For JSON."""
        return {**self._asdict(), "separates": self.separates}


def separate(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> list[Separation]:
    """The separations by each number, the strongest first.

    The p value is that of Mann and Whitney's U test (exact for few images without ties),
    corrected by Holm's method (Scand. J. Statist. 6, 1979) for all numbers tried: those that both
    sets have, for `LEAST` images at least, and that are not all equal. The interval is Newcombe's
    method 5 (Statist. Med. 25, 2006): unlike DeLong's it does not shrink to a point at an AUROC of
    0 or 1.

    Args:
      first: Numbers by name, float `[n]`; NaN where unknown.
      second: The same of the other set, `[m]`.

    Example:
      >>> separate({"mean grey": np.arange(9.0)}, {"mean grey": np.arange(9.0) + 20})[0].auroc
      1.0
    """
    known = []
    for name in first:
        one, other = (np.asarray(values[name], np.float64) for values in (first, second))
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        both = np.concatenate([one, other])
        if min(len(one), len(other)) >= LEAST and (both != both[0]).any():
            known.append((name, one, other))
    p_values = _holm(np.array([p_value(one, other) for _, one, other in known]))
    found = []
    for (name, one, other), p in zip(known, p_values):
        auroc = _auroc(one, other)
        low, high = interval(auroc, len(one), len(other))
        medians = float(np.median(one)), float(np.median(other))
        found.append(Separation(name, auroc, low, high, float(p), *medians))
    # Of numbers that are as strong as each other, the first one tried.
    return sorted(found, key=lambda item: -round(item.strength, 3))


def interval(auroc: float, n: int, m: int) -> tuple[float, float]:
    """Newcombe's 95 % interval (method 5) of an AUROC of n against m values.

    Its ends are the true values t from which the observed one lies 1.96 standard errors away, the
    squared error of t being t (1 - t) (1 + k (1 - t) / (2 - t) + k t / (1 + t)) / (n m), with
    k = (n + m) / 2 - 1 (Hanley and McNeil's with n and m balanced).
    """
    k = (n + m) / 2 - 1

    def end(far: float) -> float:
        near = auroc  # here it is less than that away, at `far` more
        for _ in range(_STEPS):
            t = (near + far) / 2
            variance = t * (1 - t) * (1 + k * (1 - t) / (2 - t) + k * t / (1 + t)) / (n * m)
            if abs(t - auroc) <= _Z * variance**0.5:
                near = t
            else:
                far = t
        return near

    return end(0.0), end(1.0)


def _auroc(one: np.ndarray, other: np.ndarray) -> float:
    below = np.searchsorted(np.sort(one), other, "left")
    up_to = np.searchsorted(np.sort(one), other, "right")
    return float((below + up_to).sum() / 2 / (len(one) * len(other)))


def p_value(one: np.ndarray, other: np.ndarray) -> float:
    """Of Mann and Whitney's two-sided U test, as `scipy.stats.mannwhitneyu` has it.

    That module alone takes a second to import. Exact where one set has at most 8 values and none
    are equal, else by the normal distribution with corrections for ties and continuity.
    """
    n, m = len(one), len(other)
    u = max((auroc := _auroc(one, other)), 1 - auroc) * n * m
    _, ties = np.unique(np.concatenate([one, other]), return_counts=True)
    if min(n, m) <= _EXACT and ties.max() == 1:
        counts = _u_counts(n, m)
        return float(min(2 * counts[int(np.ceil(u)) :].sum() / counts.sum(), 1))
    total = n + m
    variance = n * m / 12 * (total + 1 - (ties**3 - ties).sum() / (total * (total - 1)))
    return float(min(2 * special.ndtr(-(u - n * m / 2 - 0.5) / variance**0.5), 1))


def _u_counts(n: int, m: int) -> np.ndarray:
    """How many of the orders of n and m different values have U = 0 .. n m: Gauss's binomial."""
    counts = np.zeros(n * m + 1)
    counts[0] = 1
    for i in range(1, min(n, m) + 1):  # times (1 - x^(max + i)) / (1 - x^i)
        step = max(n, m) + i
        if step <= n * m:
            counts[step:] -= counts[:-step].copy()
        for start in range(i):
            counts[start::i] = np.cumsum(counts[start::i])
    return counts


def _holm(p_values: np.ndarray) -> np.ndarray:
    """Corrected p values: the smallest times their number, the next times one less, and so on."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    found = np.empty_like(p_values)
    found[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return found


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's rank correlation of two `[N]`, ties at their mean rank; None where it has none.

    That is: of fewer than `LEAST` values, or where one of the two is constant.
    """
    if len(one) < LEAST:
        return None
    ranks = []
    for values in (one, other):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    if any((rank == rank[0]).all() for rank in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])
