"""Pixel AUROC, pixel AP and PRO of one category, from one sort of its good pixels."""

import math
from collections.abc import Sequence

import numpy as np

from imvad_jax.errors import UserError
from imvad_jax.evaluation.checks import pixel_inputs, warn
from imvad_jax.evaluation.pro import pro, pro_benchmark, region_weights
from imvad_jax.evaluation.ranking import auroc, average_precision, rank


def pixel_metrics(
    maps: np.ndarray | Sequence[np.ndarray],
    masks: np.ndarray | Sequence[np.ndarray],
    pro_limit: float = 0.3,
    benchmark_pro: bool = False,
) -> dict[str, float]:
    """Returns `pixel_auroc`, `pixel_ap` and `pixel_pro`, exactly; tied scores are one threshold.

    All pixels of all images of the category, good images included, form one pool.

    Args:
      maps: [N, H, W] finite, or N arrays [H, W] whose sizes may differ; larger is more anomalous.
        float32 maps are ranked as float32, others as float64.
      masks: like `maps`, 1 (anomalous) or 0 (good), bool or numbers.
      pro_limit: in (0, 1], the false positive rate up to which PRO is integrated.
      benchmark_pro: adds `pixel_pro_100`, the IM-IAD benchmark's variant (see `pro_benchmark`).

    Returns:
      All NaN, with a `MetricWarning`, where no pixel is anomalous or none is good. Constant maps
      give AUROC 0.5, the share of anomalous pixels as AP, PRO `pro_limit` / 2 and `pixel_pro_100`
      0, with a `MetricWarning`.

    Raises:
      UserError: values that are not finite, masks that are not binary, shapes that differ.
    """
    if not 0 < pro_limit <= 1:
        raise UserError(f"pro_limit: expected a number in (0, 1], found {pro_limit}")
    maps, masks = pixel_inputs(maps, masks)
    names = ["pixel_auroc", "pixel_ap", "pixel_pro"] + ["pixel_pro_100"] * benchmark_pro
    total = sum(mask.size for mask in masks)
    num_anomalous = sum(np.count_nonzero(mask) for mask in masks)
    if num_anomalous in (0, total):
        found = "good: there is no region" if not num_anomalous else "anomalous"
        warn(f"all {total} pixels are {found}; {', '.join(names)} are NaN")
        return dict.fromkeys(names, math.nan)
    ranking = rank(*_pool(maps, masks, num_anomalous, total - num_anomalous))
    if ranking.constant:
        value = ranking.threshold[0]
        warn(f"all {total} map values equal {value}: {', '.join(names)} mean nothing")
    values = [auroc(ranking), average_precision(ranking), pro(ranking, pro_limit)]
    if benchmark_pro:
        values.append(pro_benchmark(ranking, pro_limit))
    return dict(zip(names, values))


def _pool(maps, masks, num_anomalous, num_good):
    """Returns good scores, anomalous scores and the region weights of the latter."""
    # Filled in place: a concatenation would hold the pixels of the category twice.
    good = np.empty(num_good, maps[0].dtype)
    anomalous = np.empty(num_anomalous, maps[0].dtype)
    weights = np.empty(num_anomalous, np.float64)
    g = a = 0
    for values, mask in zip(maps, masks):
        count = np.count_nonzero(mask)
        end = g + mask.size - count
        if count == 0:
            good[g:end].reshape(mask.shape)[:] = values
        else:
            good[g:end] = values[~mask]
            anomalous[a : a + count] = values[mask]
            weights[a : a + count], _ = region_weights(mask)
        g, a = end, a + count
    return good, anomalous, weights
