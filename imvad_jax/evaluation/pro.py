"""Area under the per-region overlap curve (AU-PRO), exact and as the benchmark computes it.

Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021, on the per-region
overlap; the limit of 0.3 on the false positive rate is theirs.
"""

from typing import cast

import numpy as np
from scipy import ndimage

from imvad_jax.evaluation.ranking import Ranking

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def region_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns 1 / (size of its region) for each anomalous pixel, and the number of regions.

    Args:
      mask: [H, W] bool; regions are its 8-connected components.

    Returns:
      [P] float64 in the order of `mask.nonzero()`, and a count.
    """
    labels, regions = cast("tuple[np.ndarray, int]", ndimage.label(mask, _EIGHT_CONNECTED))
    labels = labels[mask]
    return (1.0 / np.maximum(np.bincount(labels, minlength=1), 1))[labels], regions


def pro(ranking: Ranking, limit: float) -> float:
    """Returns the area under PRO over the false positive rate up to `limit`, divided by `limit`.

    The curve joins its points, one for each distinct threshold, by straight lines. So a pixel adds
    a ramp: nothing up to the rate at which only good scores above its own are counted, its whole
    weight from the rate at which those equal to it are counted too. The curve is the sum of the
    ramps, and so its area is the sum of theirs, with no curve to build and no error to accumulate.

    Args:
      ranking: of pixels, weighted by `region_weights`.
      limit: in (0, 1].
    """
    good = len(ranking.good)
    end = limit * good  # rates are counted in good pixels
    rise = (good - ranking.up_to).astype(np.float64)
    full = (good - ranking.below).astype(np.float64)
    area = end - (rise + full) / 2
    area[rise >= end] = 0.0
    cut = (rise < end) & (full > end)  # the limit falls on the ramp
    area[cut] = (end - rise[cut]) ** 2 / (2 * (full[cut] - rise[cut]))
    return float(np.dot(ranking.weight, area) / (ranking.weight.sum() * end))


def pro_benchmark(ranking: Ranking, limit: float, num_thresholds: int = 100) -> float:
    """Returns AU-PRO as the IM-IAD benchmark's code computes it; lower than `pro` as a rule.

    Thresholds are equidistant in rank among the good scores; a pixel is detected if strictly above;
    the false positive rate is taken from the rank, not counted. About 30 of 100 points lie below a
    limit of 0.3, and the chord over the first interval cuts the steepest part of the curve off.
    Only for comparison with figures computed this way.
    """
    ordered = np.sort(ranking.good, kind="stable")  # it merges the runs
    good = len(ordered)
    position = np.linspace(0, good - 1, num_thresholds).astype(np.int64)
    weight_up_to = np.r_[0.0, np.cumsum(ranking.weight)]
    missed = np.searchsorted(ranking.threshold, ordered[position], side="right")
    overlap = 1.0 - weight_up_to[missed] / weight_up_to[-1]
    rate = 1.0 - (position + 1) / good
    rate, overlap = np.r_[rate[::-1], 1.0], np.r_[overlap[::-1], 1.0]
    inside = rate < limit
    at_limit = np.interp(limit, rate, overlap)
    return float(np.trapezoid(np.r_[overlap[inside], at_limit], np.r_[rate[inside], limit]) / limit)
