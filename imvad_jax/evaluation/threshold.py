"""Thresholds: an image or pixel is called anomalous if its score is above the threshold.

A score equal to the threshold is good, everywhere. So if all good images are identical and the
threshold is their score, none of them is flagged.
"""

import math

import numpy as np

from imvad_jax.errors import UserError
from imvad_jax.evaluation.checks import image_inputs, warn
from imvad_jax.evaluation.ranking import rank

_SLACK = 1e-9  # of ranks: 0.9 * 10 is 9, not the next larger float


def f1_max(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the threshold with the best F1, and that F1: an upper bound, for it sees the labels.

    Args:
      scores: [N] finite.
      labels: [N], 1 (anomalous) or 0 (good).

    Returns:
      The threshold is the next smaller number of the scores' type below an anomalous score, the
      highest of those that reach the maximum (to cut below a good score only adds false positives
      to the anomalous one above it). NaN and NaN, with a `MetricWarning`, if no label is 1.

    Raises:
      UserError: as `image_metrics`.
    """
    scores, labels = image_inputs(scores, labels)
    if not labels.any():
        warn(f"all {labels.size} labels are 0: F1 and its threshold are NaN")
        return math.nan, math.nan
    ranking = rank(scores[~labels], scores[labels])
    hits = ranking.true_positives
    f1 = 2 * hits / (hits[0] + hits + ranking.false_positives)
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    lowest_found = ranking.threshold[best]
    below = np.nextafter(lowest_found, lowest_found.dtype.type(-np.inf))
    return float(below), float(f1[best])


def f1_at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Returns the F1 of calling every score > `threshold` anomalous; NaN if no label is 1.

    Raises:
      UserError: as `image_metrics`.
    """
    scores, labels = image_inputs(scores, labels)
    if not labels.any():
        return math.nan
    called = scores > threshold
    return float(2 * (called & labels).sum() / (called.sum() + labels.sum()))


def threshold_rank(count: int, quantile: float) -> int:
    """Returns the rank of the threshold among `count` good scores, counted from the smallest, 1.

    The smallest r that promises the rate 1 - `quantile`, `ceil((count + 1) quantile)`; `count`, the
    largest score, where there are too few of them. Of new good images at most the share
    `promised_rate` lies above it on average, whatever the distribution of the scores and however
    many of them are equal, if new and old ones are drawn alike (split conformal prediction; Vovk,
    Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005).
    """
    return max(min(math.ceil((count + 1) * quantile - _SLACK), count), 1)


def promised_rate(count: int, rank: int) -> float:
    """The largest average fraction of new good images above the `rank`-th of `count` scores."""
    return (count + 1 - rank) / (count + 1)


def images_needed(quantile: float) -> int | None:
    """The least number of good images that guarantees the rate 1 - `quantile`, or None."""
    return None if quantile >= 1 else max(math.ceil(quantile / (1 - quantile) - _SLACK), 1)


def quantile_threshold(good_scores: np.ndarray, quantile: float) -> float:
    """Returns the `threshold_rank`-th smallest score of good images, in float64.

    Needs no anomalous image. It is one of the scores, never a value between two: so a good image
    that is equal to one of these never lies between them and the threshold. numpy's default
    quantile is exceeded by nearly twice as many as promised where n is 20.

    Args:
      good_scores: [N] finite.
      quantile: In [0, 1].

    Raises:
      UserError: no scores, scores that are not finite, `quantile` outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise UserError(f"quantile: expected a number in [0, 1], found {quantile}")
    scores, _ = image_inputs(good_scores, np.zeros(np.shape(good_scores), bool))
    number = threshold_rank(len(scores), quantile) - 1
    return float(np.partition(scores, number)[number])
