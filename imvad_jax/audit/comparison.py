"""Two sets of images compared by trivial numbers, and what is said of it."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from imvad_jax.audit import files, statistics
from imvad_jax.audit.separation import LEAST, RISK, Separation, separate
from imvad_jax.errors import listed

TRAIN, GOOD, DEFECTIVE, NEW = "train", "good", "defective", "new"
WORDS = {
    TRAIN: "training images", GOOD: "good test images", DEFECTIVE: "defective test images",
    NEW: "new images",
}  # fmt: skip
_NAMED = 3  # facts of files in a line


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How trivial numbers separate two sets of images.

    Attributes:
      first, second: Their sets, keys of `WORDS`.
      counts: Their images.
      found: A `Separation` by each number tried, the strongest first; empty where too few.
      nearer: Of three sets, which of the two is nearer to the training images in the strongest
        number; empty: not known.
      train: The median of the strongest number over the training images; None: not known.
    """

    first: str
    second: str
    counts: tuple[int, int]
    found: Sequence[Separation]
    nearer: str = ""
    train: float | None = None

    @property
    def strongest(self) -> Separation | None:
        """That of the numbers of pixels, else of what a network sees of the files."""
        seen = [one for one in self.found if one.name not in files.UNSEEN]
        pixels = [one for one in seen if one.name in statistics.NAMES]
        return next(iter(pixels or seen), None)

    @property
    def beside(self) -> list[Separation]:
        """Facts of the files that separate as well."""
        return [
            one for one in self.found
            if one.separates and one is not self.strongest and one.name not in statistics.NAMES
        ]  # fmt: skip

    @property
    def warns(self) -> bool:
        """Whether something that a network sees separates.

        When and with what camera settings images were taken is named, and warns of nothing:
        defective parts are often photographed on another day, and no network sees the clock.
        """
        strongest = self.strongest
        seen = [one for one in self.beside if one.name not in files.UNSEEN]
        return bool(seen) or bool(strongest and strongest.separates)

    @property
    def line(self) -> str:
        """What it found, in one line."""
        first, second = WORDS[self.first], WORDS[self.second]
        for words, count in zip((first, second), self.counts):
            if not count:
                return f"{first} against {second}: no {words}, nothing to compare"
        if min(self.counts) < LEAST:
            return (
                f"{first} against {second}: {self.counts[0]} and {self.counts[1]}, too few to "
                f"tell (at least {LEAST} of each)"
            )
        one = self.strongest
        if one is None:
            return f"{first} against {second}: all numbers are equal; nothing found"
        figures = (
            f"AUROC {one.auroc:.3f} (95 % {one.low:.2f} to {one.high:.2f}), p {one.p:.1g} "
            f"corrected for {len(self.found)} numbers; medians {_short(one.first)} and "
            f"{_short(one.second)}"
        )
        if self.train is not None:
            figures += f", of the training {_short(self.train)}"
        if one.separates:
            text = f"{one.name} alone tells {first} from {second}: {figures}"
            if self.nearer:
                other = self.second if self.nearer == self.first else self.first
                text += f"; it is the {WORDS[other]} that differ from the training's"
        else:
            shift = "a shift, but too small to pass for a detector"
            text = (
                f"{first} against {second}: the strongest number is {one.name}, {figures}; "
                f"{shift if one.p < RISK else 'nothing found'}"
            )
        if self.beside:
            others = [f"{other.name} (AUROC {other.auroc:.3f})" for other in self.beside]
            text += f"; of the files differ: {listed(others, _NAMED)}"
        return ("WARNING: " if self.warns else "") + text

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "first": self.first, "second": self.second, "counts": list(self.counts),
            "warns": self.warns, "strongest": self.strongest and self.strongest.name,
            "train_median": self.train, "nearer_to_training": self.nearer,
            "numbers": [one.as_dict() for one in self.found],
        }  # fmt: skip


def compare(values: Mapping, where: Mapping, first: str, second: str) -> Comparison:
    """Two sets compared; `values` holds the numbers by name of each set, `where` its images."""
    counts = len(where[first]), len(where[second])
    if min(counts) < LEAST:
        return Comparison(first, second, counts, [])
    found = Comparison(first, second, counts, separate(values[first], values[second]))
    strongest = found.strongest
    if TRAIN in (first, second) or not where[TRAIN] or strongest is None:
        return found
    train = values[TRAIN][strongest.name]
    train = train[np.isfinite(train)]
    if len(train) < LEAST:
        return found
    apart = [separate({"": train}, {"": values[name][strongest.name]}) for name in (first, second)]
    strengths = [one[0].strength if one else 0.0 for one in apart]
    nearer = "" if strengths[0] == strengths[1] else (first, second)[int(np.argmin(strengths))]
    return dataclasses.replace(found, nearer=nearer, train=float(np.median(train)))


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
