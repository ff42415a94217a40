"""Image AUROC and image AP of one category."""

import math

import numpy as np

from imvad_jax.evaluation.checks import image_inputs, warn
from imvad_jax.evaluation.ranking import auroc, average_precision, rank


def image_metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns `image_auroc` and `image_ap`, exactly, with tied scores as one threshold.

    Args:
      scores: [N] finite, larger is more anomalous.
      labels: [N], 1 (anomalous) or 0 (good).

    Returns:
      Both NaN, with a `MetricWarning`, where the labels are of one class only. Constant scores give
      0.5 and the share of anomalous images, with a `MetricWarning`.

    Raises:
      UserError: scores that are not finite, labels that are not 0 or 1, shapes that differ.
    """
    scores, labels = image_inputs(scores, labels)
    if labels.all() or not labels.any():
        found = "good" if not labels.any() else "anomalous"
        warn(f"all {labels.size} images are {found}: image_auroc and image_ap are NaN")
        return {"image_auroc": math.nan, "image_ap": math.nan}
    ranking = rank(scores[~labels], scores[labels])
    if ranking.constant:
        warn(f"all {labels.size} scores equal {scores[0]}: image_auroc and image_ap mean nothing")
    return {"image_auroc": auroc(ranking), "image_ap": average_precision(ranking)}
