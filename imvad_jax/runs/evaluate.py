"""Computes a row of the table from scores and maps, with notes for its readers."""

import warnings
from collections.abc import Callable

import numpy as np

from imvad_jax.data.category import CategoryData
from imvad_jax.evaluation import Calibration, f1_at, f1_max, image_metrics, pixel_metrics
from imvad_jax.runs.full_resolution import full_resolution
from imvad_jax.runs.specs import Options
from imvad_jax.training.score import Scores


def evaluate(
    scores: Scores,
    data: CategoryData,
    options: Options,
    calibration: Calibration | None,
    log: Callable[[str], object],
) -> tuple[dict, list[str]]:
    """The metrics of the test images by name, and notes on them; says what the threshold finds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = compute_metrics(scores, data, options)
        if scores.maps is not None:
            metrics |= count_regions(data, options)
        if calibration:
            metrics |= verdicts(scores.image, data.labels, calibration.image.threshold, log)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return metrics, [*notes, *data.late_notes, *_notes(data, options, metrics)]


def compute_metrics(scores: Scores, data: CategoryData, options: Options) -> dict:
    """The row of the table: `image_auroc image_ap pixel_auroc pixel_ap pixel_pro`."""
    metrics = image_metrics(scores.image, data.labels)
    if scores.maps is None or data.masks is None:
        return metrics | dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_pro"))
    maps, masks = scores.maps, data.masks
    if options.full_resolution_metrics:
        maps, masks = full_resolution(maps, data)
    return metrics | pixel_metrics(maps, masks, benchmark_pro=options.benchmark_pro)


def count_regions(data: CategoryData, options: Options) -> dict[str, int | None]:
    """How many defect regions there are, and how many the pixel metrics cannot count."""
    if data.masks is None:
        return {}
    vanished = 0 if options.full_resolution_metrics else data.found.vanished
    return {"regions": data.found.regions, "regions_vanished": vanished}


def verdicts(scores: np.ndarray, labels: np.ndarray, threshold: float, log) -> dict[str, float]:
    """F1 at the threshold and at the best one, as metrics; says what is flagged and found."""
    called = scores > threshold
    good, defective = labels == 0, labels == 1
    f1, best = f1_at(scores, labels, threshold), f1_max(scores, labels)[1]
    text = f"at the threshold: {(called & good).sum()} of {good.sum()} good test images flagged"
    if defective.any():
        text += f", {(called & defective).sum()} of {defective.sum()} defective ones found"
        text += f"; F1 {f1:.3f} ({best:.3f} at the best threshold, which only labels can tell)"
    log(text)
    return {"image_f1": f1, "image_f1_max": best}


def _notes(data: CategoryData, options: Options, metrics: dict) -> list[str]:
    notes = []
    size = "the size of their maps" if data.tiling else f"{data.geometry.crop} px"
    if options.full_resolution_metrics:
        notes.append("Pixel metrics are computed at the original size of the masks.")
    if data.tiling:
        notes.append(
            f"Looked at in tiles of {data.tiling.tile} px that overlap by {data.tiling.overlap}: "
            "the score of an image is that of its highest tile, its map is blended from theirs."
        )
    if data.masks is not None:
        vanished = sum(bool(y) and not mask.any() for y, mask in zip(data.labels, data.masks))
        if vanished:
            notes.append(
                f"{vanished} defective images have an empty mask at {size}: they count for the "
                "image metrics only"
            )
        if metrics.get("regions_vanished"):
            notes.append(
                f"{metrics['regions_vanished']} of {metrics['regions']} defect regions vanish at "
                f"{size} (too small, or outside the crop), so no pixel metric counts them; "
                "--full_resolution_metrics keeps them"
            )
    return notes
