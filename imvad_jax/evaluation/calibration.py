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
from imvad_jax.evaluation.threshold import quantile_threshold

NAME = "calibration.json"  # in a run directory


@dataclasses.dataclass(frozen=True)
class Scale:
    """A strictly increasing scale from 0 to 1: `threshold` lies at 0.5, `typical` at 0.25.

    With the distance between the two as the unit, x units above the threshold become
    `0.5 + 0.5 x / (1 + |x|)`: 0.75 at one unit, 0.95 at nine. It never saturates, so that the
    worst of many defects can still be told apart.
    """

    threshold: float
    typical: float  # a usual value of good images

    @property
    def unit(self) -> float:
        """`threshold - typical`; a thousandth of the threshold where the two (nearly) agree."""
        least = max(1e-3 * abs(self.threshold), 1e-12)
        return max(self.threshold - self.typical, least)

    def normalize(self, values):
        """Values on the scale, in their own shape; numpy and JAX arrays, in float64 if they are."""
        x = (values - self.threshold) / self.unit
        return 0.5 + 0.5 * x / (1 + abs(x))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The thresholds of a detector and how they were found.

    An image is called defective if its score >= `image.threshold`; a pixel belongs to a region if
    its value >= `pixel.threshold`.
    """

    image: Scale
    pixel: Scale | None  # None: an image-only method
    quantile: float
    scores: tuple[float, ...]  # of the good images it rests on
    files: tuple[str, ...]  # their names

    @property
    def flagged(self) -> int:
        """How many of these good images reach the threshold."""
        return sum(score >= self.image.threshold for score in self.scores)

    @property
    def expected_rate(self) -> float:
        """Share of new good images that will be flagged, at best known: 1 / (n + 1) at least."""
        return max(1 - self.quantile, 1 / (len(self.scores) + 1))

    @property
    def rate_interval(self) -> tuple[float, float]:
        """Between which shares of new good images the true one lies, nine times in ten.

        The share that reaches the r-th smallest of n scores is distributed as Beta(n + 1 - r, r).
        """
        count = len(self.scores)
        rank = min((count + 1) * self.quantile, count)
        low, high = special.betaincinv(count + 1 - rank, rank, (0.05, 0.95))
        return float(low), float(high)

    def describe(self) -> str:
        """One sentence for a person."""
        count, (low, high) = len(self.scores), self.rate_interval
        return (
            f"threshold {self.image.threshold:.6g}: quantile {self.quantile:g} of the scores of "
            f"{count} good images that were not fitted on; it flags {self.flagged} of them, and "
            f"about {100 * self.expected_rate:.2g} % of new good images are to be expected "
            f"({100 * low:.1g} to {100 * high:.2g} %, nine times in ten)"
        )

    def as_dict(self) -> dict:
        """For JSON; `from_dict` reads it."""
        return dataclasses.asdict(self) | {"count": len(self.scores), "flagged": self.flagged}

    @classmethod
    def from_dict(cls, values: dict) -> "Calibration":
        """Raises KeyError, TypeError or ValueError if `values` are not those of `as_dict`."""
        pixel = values["pixel"]
        quantile = _finite("quantile", values["quantile"])
        if not 0.5 <= quantile <= 1:
            raise ValueError(f"quantile is {quantile}, expected a number from 0.5 to 1")
        return cls(
            _stored_scale("image", values["image"]),
            None if pixel is None else _stored_scale("pixel", pixel),
            quantile,
            tuple(_finite("a score", score) for score in values["scores"]),
            tuple(str(name) for name in values["files"]),
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


def calibrate(
    scores: np.ndarray,
    files: Sequence[str],
    quantile: float,
    map_maxima: np.ndarray | None = None,
    map_medians: np.ndarray | None = None,
) -> Calibration:
    """Finds both thresholds from good images.

    The image threshold is the `quantile` of the scores. The pixel threshold is the same quantile of
    the largest value of each map, so that as many good images show a region as are flagged.

    Args:
      scores: [N] of good images that were not fitted on.
      files: Their N names.
      quantile: In [0.5, 1].
      map_maxima: [N], the largest value of each map; None for an image-only method.
      map_medians: [N], the median of each map.

    Raises:
      UserError: as `quantile_threshold`, or a quantile below one half.
    """
    check_quantile(quantile)
    pixel = None
    if map_maxima is not None:
        highest = quantile_threshold(map_maxima, quantile)
        pixel = Scale(highest, float(np.median(map_medians)))
    values = tuple(float(score) for score in scores)
    image = Scale(quantile_threshold(scores, quantile), float(np.median(values)))
    return Calibration(image, pixel, float(quantile), values, tuple(files))


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a calibration ({type(error).__name__} {error})") from None
