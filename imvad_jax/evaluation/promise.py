"""Notes on calibrations with a weak guarantee: too few good images, or identical ones."""

from typing import TYPE_CHECKING

from imvad_jax.evaluation.threshold import images_needed

if TYPE_CHECKING:
    from imvad_jax.evaluation.calibration import Calibration


def promise_notes(found: "Calibration") -> tuple[str, ...]:
    """See `Calibration.notes`."""
    count, rate, notes = len(found.scores), 100 * (1 - found.quantile), []
    images = f"{count} image{'s' if count > 1 else ''}"
    needed = images_needed(found.quantile)
    if needed is not None and count < needed:
        notes.append(
            f"no rate of {rate:.2g} % can be promised from {images}; {needed} would do. The "
            "threshold is the largest of their scores, and at most "
            f"{100 * found.expected_rate:.2g} % of new good images are expected above it"
        )
    if count == 1:
        notes.append(
            "one good image does not define a scale of scores: a typical score is assumed to lie a "
            "tenth below the threshold"
        )
    elif found.copies == count - 1:
        notes.append(
            f"all {images} behind the threshold are equal (copies?): they do not show how good "
            "parts differ. The threshold is the score that noise of one grey level leads to"
        )
    elif found.copies:
        notes.append(
            f"{found.copies} of the {images} behind the threshold are equal to another one "
            "(copies?): they guarantee less than as many different images"
        )
    elif min(found.scores) == max(found.scores):
        notes.append(f"all {images} behind the threshold have the same score")
    return tuple(notes)
