"""What a calibration cannot promise, in words: too few good images, or equal ones."""

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
            f"{100 * found.expected_rate:.2g} % of new good images are to be expected above it"
        )
    if count == 1:
        notes.append(
            "from one good image no scale of scores can be made: a usual one is taken to lie a "
            "tenth below the threshold"
        )
    elif found.copies == count - 1:
        notes.append(
            f"all {images} that the threshold rests on are equal (copies?): they do not show how "
            "good parts differ. The threshold lies where noise of one grey level brings the score"
        )
    elif found.copies:
        notes.append(
            f"{found.copies} of the {images} that the threshold rests on are equal to another one "
            "(copies?): they promise less than so many different ones"
        )
    elif min(found.scores) == max(found.scores):
        notes.append(f"all {images} that the threshold rests on have one score")
    return tuple(notes)
