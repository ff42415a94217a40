"""Thresholds from good images alone, and the scale on which they are 0.5.

A fitted detector scores the images it was fitted on lower than new ones, so the scores must come
from good images that the fit did not see.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import special

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.evaluation.promise import promise_notes
from imvad_jax.evaluation.threshold import promised_rate, quantile_threshold, threshold_rank

NAME = "calibration.json"  # in a run directory


TOLERANCE = 1e-5  # relative: scores that differ by less differ by rounding (batch size, device)
# What `Calibration.from_dict` raises of values that are none.
UNFIT = (ValueError, LookupError, TypeError, OverflowError)
_LEAST_UNIT = 1e-3  # of the unit, relative to the threshold; of scores that are all 0 absolute


@dataclasses.dataclass(frozen=True)
class Scale:
    """A strictly increasing scale from 0 to 1: `threshold` lies at 0.5, `typical` at 0.25.

    With the distance between the two as the unit, x units above the threshold become
    `0.5 + 0.5 x / (1 + |x|)`: 0.75 at one unit, 0.95 at nine. It never saturates, so that the
    worst of many defects can still be told apart. What lies above 0.5 is called anomalous.
    """

    threshold: float
    typical: float  # a usual value of good images

    @property
    def unit(self) -> float:
        """`threshold - typical`; at least a thousandth of the threshold (of 0: a thousandth)."""
        return max(self.threshold - self.typical, _LEAST_UNIT * (abs(self.threshold) or 1.0))

    def normalize(self, values):
        """Values on the scale, in their own shape; numpy and JAX arrays, in float64 if they are."""
        x = (values - self.threshold) / self.unit
        return 0.5 + 0.5 * x / (1 + abs(x))


@dataclasses.dataclass(frozen=True, repr=False)
class Calibration:
    """The thresholds of a detector and how they were found.

    An image is called defective if its score > `image.threshold`; a pixel belongs to a region if
    its value > `pixel.threshold`.
    """

    image: Scale
    pixel: Scale | None  # None: an image-only method
    quantile: float
    scores: tuple[float, ...]  # of the good images it rests on
    files: tuple[str, ...]  # their names
    folds: int = 0  # number of folds of the cross-validation; 0: the images were held out
    maxima: tuple[float, ...] = ()  # the largest value of the map of each
    medians: tuple[float, ...] = ()  # the median of the map of each
    copies: int = 0  # of these images are equal to another one of them, pixel by pixel
    # What noise of one grey level adds to the score and to the largest value of the map, at most;
    # None: the scores say enough, it was not looked for.
    grain: tuple[float, float] | None = None

    def __repr__(self) -> str:
        count = len(self.scores)
        found = f"by {self.folds} folds of" if self.folds else "from"
        pixel = f", of pixels {self.pixel.threshold:.6g}" if self.pixel else ""
        return (
            f"Calibration(threshold {self.image.threshold:.6g}{pixel}, quantile {self.quantile:g}, "
            f"{found} {count} good image{'s' * (count != 1)})"
        )

    @property
    def flagged(self) -> int:
        """Number of these good images with a score above the threshold."""
        return sum(score > self.image.threshold for score in self.scores)

    @property
    def rank(self) -> int:
        """Rank of the score that is the threshold, counted from the smallest, 1."""
        return threshold_rank(len(self.scores), self.quantile)

    @property
    def expected_rate(self) -> float:
        """The largest fraction of new good images that will be flagged on average."""
        rate = promised_rate(len(self.scores), self.rank)
        if self.image.threshold < sorted(self.scores)[self.rank - 1]:
            return max(rate, 1 - self.quantile)  # an earlier version put it between two scores
        return rate

    @property
    def rate_interval(self) -> tuple[float, float]:
        """The 90 % interval of the fraction of new good images above the threshold.

        The share above the r-th smallest of n scores is distributed as Beta(n + 1 - r, r).
        """
        count = len(self.scores)
        low, high = special.betaincinv(count + 1 - self.rank, self.rank, (0.05, 0.95))
        return float(low), float(high)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on a weak guarantee, one line each: too few good images, or identical ones."""
        return promise_notes(self)

    def describe(self) -> str:
        """One sentence for a person."""
        count, (low, high) = len(self.scores), self.rate_interval
        apart = "that were not fitted on"
        if self.folds:
            apart = f"({self.folds} folds: each is scored by a detector fitted on other folds)"
        return (
            f"threshold {self.image.threshold:.6g}: quantile {self.quantile:g} of the scores of "
            f"{count} good images {apart}; it flags {self.flagged} of them, and "
            f"at most {100 * self.expected_rate:.2g} % of new good images are expected above it "
            f"(90 % interval: {100 * low:.1g} to {100 * high:.2g} %)"
        )

    def at(self, quantile: float) -> "Calibration":
        """The thresholds at another quantile of the same scores.

        Raises:
          UserError: a quantile out of its range.
        """
        return calibrate(
            np.array(self.scores), self.files, quantile,
            np.array(self.maxima) if self.maxima else None,
            np.array(self.medians) if self.maxima else None,
            folds=self.folds, copies=self.copies, grain=self.grain,
        )  # fmt: skip

    def as_dict(self) -> dict:
        """For JSON; `from_dict` reads it."""
        return dataclasses.asdict(self) | {
            "count": len(self.scores),
            "flagged": self.flagged,
            "promised_rate": self.expected_rate,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, values: dict) -> "Calibration":
        """Raises one of `UNFIT` if `values` are not those of `as_dict`.

        Those of earlier versions lack all from `folds` on.
        """
        pixel, grain = values["pixel"], values.get("grain")
        quantile = _finite("quantile", values["quantile"])
        if not 0.5 <= quantile <= 1:
            raise ValueError(f"quantile is {quantile}, expected a number from 0.5 to 1")
        scores = tuple(_finite("a score", score) for score in values["scores"])
        if not scores:
            raise ValueError("no scores")
        return cls(
            _stored_scale("image", values["image"]),
            None if pixel is None else _stored_scale("pixel", pixel),
            quantile,
            scores,
            tuple(str(name) for name in values["files"]),
            int(values.get("folds", 0)),
            tuple(_finite("a maximum", value) for value in values.get("maxima", ())),
            tuple(_finite("a median", value) for value in values.get("medians", ())),
            int(values.get("copies", 0)),
            grain and (_finite("grain", grain[0]), _finite("grain", grain[1])),
        )


def _stored_scale(name: str, values: dict) -> Scale:
    ends = (_finite(f"{name}.{end}", values[end]) for end in ("threshold", "typical"))
    return Scale(*ends)


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r:.40}, expected a finite number")
    return float(value)


def check_quantile(quantile: float) -> None:
    """Raises UserError if `quantile` is not in [0.5, 1]."""
    if not 0.5 <= quantile <= 1:
        raise UserError(f"--threshold_quantile={quantile}: expected a number from 0.5 to 1")


def needs_grain(scores: np.ndarray, copies: int) -> bool:
    """Whether scores `[N]` have no spread: identical images, or (nearly) equal scores."""
    return copies > 0 or np.ptp(scores) <= _LEAST_UNIT * np.abs(scores).max()


def calibrate(
    scores: np.ndarray,
    files: Sequence[str],
    quantile: float,
    map_maxima: np.ndarray | None = None,
    map_medians: np.ndarray | None = None,
    *,
    folds: int = 0,
    copies: int = 0,
    grain: tuple[float, float] | None = None,
) -> Calibration:
    """Finds both thresholds from good images.

    The image threshold is the `threshold_rank`-th smallest of the scores and the pixel threshold
    that of the largest value of each map, so that as many good images show a region as are flagged;
    both with `TOLERANCE` added, so that rounding decides nothing.

    Args:
      scores: [N] of good images that were not fitted on.
      files: Their N names.
      quantile: In [0.5, 1].
      map_maxima: [N], the largest value of each map; None for an image-only method.
      map_medians: [N], the median of each map.
      folds: Number of folds of the cross-validation; 0 if the images were held out.
      copies: So many of them are equal to another one.
      grain: What noise of one grey level adds to a score and to the largest value of a map: both
        thresholds lie so far above a usual value, at least. None: not known.

    Raises:
      UserError: as `quantile_threshold`, or a quantile below one half.
    """
    check_quantile(quantile)
    pixel, (image_grain, pixel_grain) = None, grain or (0.0, 0.0)
    if map_maxima is not None:
        assert map_medians is not None  # both are of the same maps
        usual = float(np.median(map_maxima))
        pixel = _scale(map_maxima, quantile, usual + pixel_grain, float(np.median(map_medians)))
    usual = float(np.median(scores)) if len(scores) else 0.0
    image = _scale(scores, quantile, usual + image_grain, usual)
    return Calibration(
        image, pixel, float(quantile), _floats(scores), tuple(files), folds,
        () if map_maxima is None else _floats(map_maxima),
        () if map_medians is None else _floats(map_medians),
        copies, grain,
    )  # fmt: skip


def _scale(values: np.ndarray, quantile: float, least: float, typical: float) -> Scale:
    """The scale from the values of good images; its threshold is `least` or above."""
    threshold = quantile_threshold(values, quantile)
    threshold = max(threshold, least) + TOLERANCE * abs(threshold)
    # The spread of a handful of values may be next to nothing by chance, and one value has none.
    least_unit = 0.1 / len(values) if len(values) < 5 else _LEAST_UNIT
    return Scale(threshold, min(typical, threshold - least_unit * abs(threshold)))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def read_calibration(run_dir: str | Path) -> Calibration | None:
    """The calibration of a run directory; None if it has none.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(run_dir) / NAME
    try:
        return Calibration.from_dict(sealed.read(path))
    except FileNotFoundError:
        return None
    except sealed.DamagedError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, *UNFIT) as error:
        raise UserError(f"{path}: not a calibration ({type(error).__name__} {error})") from None
