"""The range of each trivial number over the good images, and new images that lie outside."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import betaln, gammaln

from imvad_jax.audit import statistics
from imvad_jax.data.batches import Images

RISK = 0.01  # of a warning where nothing has changed, all numbers together
_MOST = 500  # images that are looked at
_LEAST = 3


@dataclasses.dataclass(frozen=True)
class Outside:
    """New images of which some lie outside of the range of one number."""

    name: str
    outside: int
    count: int
    median: float  # of the new images
    lowest: float  # of the good images
    highest: float

    def __str__(self) -> str:
        pictures = "image lies" if self.outside == 1 else "images lie"
        return (
            f"{self.outside} of {self.count} new {pictures} outside the good images' range of "
            f"{self.name}: their median is {self.median:.4g}, the good images' lay between "
            f"{self.lowest:.4g} and {self.highest:.4g}; was the light or the camera another one? "
            "Scores and thresholds are those of the good images' light"
        )

    def as_dict(self) -> dict:
        """For results.json."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """The lowest, median and highest value of each number over `count` good images."""

    count: int
    numbers: Mapping[str, tuple[float, float, float]]

    @classmethod
    def of_numbers(cls, numbers: Mapping[str, np.ndarray]) -> "Ranges | None":
        """The ranges of numbers `[N]` by name, of the pixels alone; None of fewer than 3 images."""
        found = {
            name: (float(values.min()), float(np.median(values)), float(values.max()))
            for name in statistics.NAMES
            if (values := numbers.get(name)) is not None
            and len(values) >= _LEAST and np.isfinite(values).all()
        }  # fmt: skip
        return cls(len(numbers[next(iter(found))]), found) if found else None

    @classmethod
    def of_images(cls, images: Images) -> "Ranges | None":
        """The ranges of decoded images, of every so many-th of more than 500.

        None where they are in tiles, whose numbers are not those of images.
        """
        if getattr(images, "tiling", None) is not None or len(images) < _LEAST:
            return None
        if len(images) > _MOST:
            images = images.take(np.linspace(0, len(images) - 1, _MOST).astype(int))
        return cls.of_numbers(statistics.measure(images).numbers)

    def outside(self, numbers: Mapping[str, float]) -> tuple[str, ...]:
        """The names of those numbers of an image that lie outside of their range."""
        return tuple(
            name for name, (low, _, high) in self.numbers.items()
            if name in numbers and not low <= numbers[name] <= high
        )  # fmt: skip

    def compare(self, pictures: Sequence[Mapping[str, float]]) -> Outside | None:
        """The number by which new images differ most from the good ones; None: none does.

        A number is said to differ where more of n new images lie outside than would in one of
        `RISK` sets as alike as the good images themselves. Among alike images how many lie
        beyond the lowest or highest of N follows the beta-binomial distribution with n, 2 and
        N - 1, whatever the values' own distribution; `RISK` is divided by the number of numbers.
        And where half of the images at least are farther outside than the whole range is wide:
        of a single image the rule above could never say anything.
        """
        if not pictures:
            return None
        found = []
        for name, (low, _, high) in self.numbers.items():
            values = np.array([one.get(name, np.nan) for one in pictures])
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            beyond = np.maximum(low - values, values - high)
            count = int((beyond > 0).sum())
            if not count:
                continue
            p = _at_least(count, len(values), 2, max(self.count - 1, 1))
            far = (beyond > max(high - low, 1.0)).mean() >= 0.5
            if far or p * len(self.numbers) < RISK:
                item = Outside(name, count, len(values), float(np.median(values)), low, high)
                found.append((count, float(np.median(beyond)) / max(high - low, 1.0), item))
        return max(found, key=lambda entry: entry[:2])[2] if found else None

    def as_dict(self) -> dict:
        """For the record of a model."""
        return {"images": self.count, "numbers": {k: list(v) for k, v in self.numbers.items()}}

    @classmethod
    def from_dict(cls, stored: Any) -> "Ranges":
        """What `as_dict` gave. Raises ValueError for what it cannot have given."""
        if not isinstance(stored, dict) or not isinstance(stored.get("numbers"), dict):
            raise ValueError("no numbers")
        count = stored.get("images")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError("no number of images")
        numbers = {}
        for name, values in stored["numbers"].items():
            fits = isinstance(values, list) and len(values) == 3 and all(
                isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
                for v in values
            )  # fmt: skip
            if not fits or sorted(values) != values:
                raise ValueError(f"{name:.40} is no lowest, median and highest value")
            numbers[name] = tuple(map(float, values))
        return cls(count, numbers)


def _at_least(count: int, n: int, a: int, b: int) -> float:
    """The probability of `count` or more of n, beta-binomial with a and b."""
    k = np.arange(count, n + 1)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return float(np.exp(ways + betaln(k + a, n - k + b) - betaln(a, b)).sum())
