"""Where to cut a score. An image or pixel is called anomalous if its score >= the threshold."""

import math

import numpy as np

from imvad_jax.errors import UserError
from imvad_jax.evaluation.checks import image_inputs, warn
from imvad_jax.evaluation.ranking import rank


def f1_max(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Returns the threshold with the best F1, and that F1: an upper bound, for it sees the labels.

    Args:
      scores: [N] finite.
      labels: [N], 1 (anomalous) or 0 (good).

    Returns:
      The threshold is an anomalous score, the highest of those that reach the maximum (a threshold
      at a good score only adds false positives to the anomalous one above it). NaN and NaN, with a
      `MetricWarning`, if no label is 1.

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
    return float(ranking.threshold[best]), float(f1[best])


def f1_at(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Returns the F1 of calling every score >= `threshold` anomalous; NaN if no label is 1.

    Raises:
      UserError: as `image_metrics`.
    """
    scores, labels = image_inputs(scores, labels)
    if not labels.any():
        return math.nan
    called = scores >= threshold
    return float(2 * (called & labels).sum() / (called.sum() + labels.sum()))


def quantile_threshold(good_scores: np.ndarray, quantile: float) -> float:
    """Returns the `quantile` of the scores of good images, in float64.

    Needs no anomalous image. The r-th smallest of n scores, r = (n + 1) `quantile` (at most n,
    linear between neighbours), is reached by the share 1 - r / (n + 1) of new good images on
    average, whatever their distribution: 1 - `quantile`, or 1 / (n + 1) where n is too small for
    that. With 1 it is the largest score. numpy's default, r = 1 + (n - 1) `quantile`, is reached by
    nearly twice as many as promised where n is 20.

    Raises:
      UserError: no scores, scores that are not finite, `quantile` outside [0, 1].
    """
    if not 0 <= quantile <= 1:
        raise UserError(f"quantile: expected a number in [0, 1], found {quantile}")
    scores, _ = image_inputs(good_scores, np.zeros(np.shape(good_scores), bool))
    return float(np.quantile(scores.astype(np.float64), quantile, method="weibull"))
