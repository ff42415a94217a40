"""The threshold of a run: found from good images that were not fitted on, kept beside the fit."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from experiments.record import write_json
from imvad_jax import methods
from imvad_jax.data.category import CategoryData
from imvad_jax.evaluation import Calibration, calibrate, f1_at, f1_max, read_calibration
from imvad_jax.evaluation.calibration import NAME
from imvad_jax.training import hosts
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score


def find_thresholds(
    plan, detector: methods.Detector, variables: dict, data: CategoryData, run_dir: Path,
    parallel: Parallel, options, progress, fitted_on: Collection[str] = (),
) -> Calibration | None:  # fmt: skip
    """The calibration of the run, written to its directory; None where no image is held out.

    Where the run evaluates the detector of another one, that one's is taken over. `fitted_on` names
    the images that a restored detector was fitted on; none of them is used, even where the draw
    among the images that are there now would hold it out.
    """
    if plan.checkpoint:
        found = read_calibration(plan.checkpoint)
    elif data.held_out is None:
        found = None
    else:
        names = data.held_out_names
        new = [number for number, name in enumerate(names) if name not in fitted_on]
        if not new:
            return read_calibration(run_dir)
        images = data.held_out.take(new)
        scores = score(
            detector, variables, images, parallel,
            progress=lambda total, label: progress(total, "calibrate"),
        )  # fmt: skip
        maxima = medians = None
        if scores.maps is not None:
            maxima = np.array([found.max() for found in scores.maps])
            medians = np.array([np.median(found) for found in scores.maps])  # no copy of them all
        names = [names[number] for number in new]
        found = calibrate(scores.image, names, options.threshold_quantile, maxima, medians)
    if found and hosts.is_first():
        write_json(run_dir / NAME, found.as_dict())
    return found


def verdicts(scores: np.ndarray, labels: np.ndarray, threshold: float, say) -> dict[str, float]:
    """F1 at the threshold and at the best one, as metrics; says what is flagged and found."""
    called = scores >= threshold
    good, defective = labels == 0, labels == 1
    f1, best = f1_at(scores, labels, threshold), f1_max(scores, labels)[1]
    text = f"at the threshold: {(called & good).sum()} of {good.sum()} good test images flagged"
    if defective.any():
        text += f", {(called & defective).sum()} of {defective.sum()} defective ones found"
        text += f"; F1 {f1:.3f} ({best:.3f} at the best threshold, which only labels can tell)"
    say(text)
    return {"image_f1": f1, "image_f1_max": best}
