"""The five metrics of the table as functions of arrays, in float64 numpy and exact.

    from imvad_jax import metrics

    scores, maps = model.score(data.test)
    metrics.compute(scores, data.labels, maps, data.masks)  # all five, by name
    metrics.image_auroc(scores, data.labels)  # one of them

A larger score means more anomalous; equal scores are one threshold.
Neither JAX nor TensorFlow is imported.
"""

from collections.abc import Sequence

import numpy as np

from imvad_jax.evaluation import MetricWarning, image_metrics, pixel_metrics

__all__ = [
    "MetricWarning",
    "compute",
    "image_ap",
    "image_auroc",
    "pixel_ap",
    "pixel_auroc",
    "pixel_pro",
]

Maps = np.ndarray | Sequence[np.ndarray]


def compute(
    scores: np.ndarray,
    labels: np.ndarray,
    maps: Maps | None = None,
    masks: Maps | None = None,
    pro_limit: float = 0.3,
) -> dict[str, float | None]:
    """All five metrics by name, in the order of the table.

    The pixel metrics share one sort of the pixels: this is as fast as one of them alone.

    Args:
      scores: `[N]` finite, of the images.
      labels: `[N]`, 1 (anomalous) or 0 (good).
      maps: `[N, H, W]` finite, or N arrays `[H, W]` whose sizes may differ; None without any.
      masks: As `maps`, 1 (anomalous) or 0 (good); None without any.
      pro_limit: In (0, 1], the false positive rate up to which PRO is integrated.

    Returns:
      `image_auroc`, `image_ap`, `pixel_auroc`, `pixel_ap` and `pixel_pro`. The last three are None
      where maps or masks are None, and a metric that the labels leave undefined is NaN, with a
      `MetricWarning`.

    Raises:
      UserError: values that are not finite, labels or masks that are not binary, shapes that
        differ.

    Example:
      >>> compute(np.array([0.1, 0.4, 0.9]), np.array([0, 0, 1]))["image_auroc"]
      1.0
    """
    found: dict[str, float | None] = {**image_metrics(scores, labels)}
    if maps is None or masks is None:
        return found | dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_pro"))
    return found | pixel_metrics(maps, masks, pro_limit)


def image_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """The area under the ROC curve: the chance that an anomalous image scores above a good one.

    A tie counts one half. Source: Hanley and McNeil, "The meaning and use of the area under a ROC
    curve", Radiology 1982.

    Args:
      scores: `[N]` finite.
      labels: `[N]`, 1 (anomalous) or 0 (good).

    Returns:
      From 0 to 1; NaN, with a `MetricWarning`, where the labels are of one class.

    Raises:
      UserError: as `compute`.

    Example:
      >>> image_auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
      0.75
    """
    return image_metrics(scores, labels)["image_auroc"]


def image_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision: the sum over thresholds of (increase in recall) x precision, stepwise.

    As scikit-learn's `average_precision_score`: neither interpolated nor by trapezoids.

    Args:
      scores: `[N]` finite.
      labels: `[N]`, 1 (anomalous) or 0 (good).

    Returns:
      From 0 to 1; NaN, with a `MetricWarning`, where the labels are of one class.

    Raises:
      UserError: as `compute`.

    Example:
      >>> round(image_ap(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])), 4)
      0.8333
    """
    return image_metrics(scores, labels)["image_ap"]


def pixel_auroc(maps: Maps, masks: Maps) -> float:
    """`image_auroc` of pixels: those of all images, good ones included, form one pool.

    Args:
      maps: `[N, H, W]` finite, or N arrays `[H, W]` whose sizes may differ.
      masks: As `maps`, 1 (anomalous) or 0 (good).

    Returns:
      From 0 to 1; NaN, with a `MetricWarning`, where no pixel is anomalous or none is good.

    Raises:
      UserError: as `compute`.

    Example:
      >>> pixel_auroc(np.array([[[0.1, 0.2], [0.3, 0.9]]]), np.array([[[0, 0], [0, 1]]]))
      1.0
    """
    return pixel_metrics(maps, masks)["pixel_auroc"]


def pixel_ap(maps: Maps, masks: Maps) -> float:
    """`image_ap` of pixels: those of all images, good ones included, form one pool.

    Args:
      maps: `[N, H, W]` finite, or N arrays `[H, W]` whose sizes may differ.
      masks: As `maps`, 1 (anomalous) or 0 (good).

    Returns:
      From 0 to 1; NaN, with a `MetricWarning`, where no pixel is anomalous or none is good.

    Raises:
      UserError: as `compute`.

    Example:
      >>> pixel_ap(np.array([[[0.1, 0.2], [0.9, 0.3]]]), np.array([[[0, 0], [0, 1]]]))
      0.5
    """
    return pixel_metrics(maps, masks)["pixel_ap"]


def pixel_pro(maps: Maps, masks: Maps, limit: float = 0.3) -> float:
    """The area under the per-region overlap (PRO) over the false positive rate, up to a limit.

    The overlap is the share of a defect's pixels above the threshold, averaged over all defects
    (8-connected regions of the masks), whatever their sizes; the area is exact, and divided by the
    limit. Source: Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021.

    Args:
      maps: `[N, H, W]` finite, or N arrays `[H, W]` whose sizes may differ.
      masks: As `maps`, 1 (anomalous) or 0 (good).
      limit: In (0, 1], a false positive rate of pixels.

    Returns:
      From 0 to 1; NaN, with a `MetricWarning`, where no pixel is anomalous or none is good.

    Raises:
      UserError: as `compute`, or a limit out of its range.

    Example:
      >>> pixel_pro(np.array([[[0.1, 0.2], [0.3, 0.9]]]), np.array([[[0, 0], [0, 1]]]))
      1.0
    """
    return pixel_metrics(maps, masks, limit)["pixel_pro"]
