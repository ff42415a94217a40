"""The five metrics of every table: keys, headings, meanings, formats."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Metric(NamedTuple):
    """A figure of the table."""

    key: str  # in metrics.json
    label: str  # as a heading
    meaning: str  # one sentence for a reader who does not know the field


METRICS = (
    Metric(
        "image_auroc",
        "image AUROC",
        "The chance that a defective image scores above a good one. Guessing gives .500.",
    ),
    Metric(
        "image_ap",
        "image AP",
        "Mean precision over all recalls when images are flagged in the order of their scores. "
        "Guessing gives the share of defective images.",
    ),
    Metric(
        "pixel_auroc",
        "pixel AUROC",
        "As image AUROC, for the pixels of all test images. High even for coarse maps, as nearly "
        "all pixels are good and easy.",
    ),
    Metric(
        "pixel_ap",
        "pixel AP",
        "As image AP, for pixels. Guessing gives the share of defective pixels; only sharp maps "
        "score high.",
    ),
    Metric(
        "pixel_pro",
        "PRO",
        "How much of each defect is covered, every defect counting the same whatever its size, "
        "averaged over the thresholds that flag at most 30 % of the good pixels.",
    ),
)

# Of the scores of good test images with the strongest number of the audit.
CORRELATION = "audit_rank_correlation"
BRIGHTNESS_MATCHED = "brightness_matched_"  # before the key of a metric of such test images


def is_missing(value: float | None) -> bool:
    """Whether a figure is undefined: None, or not a finite number."""
    return value is None or not math.isfinite(value)


def format_value(value: float | None) -> str:
    """Three decimals without the leading zero: `.981`, `1.000`; `-` where undefined."""
    if is_missing(value):
        return "-"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def defined(values: Iterable[float | None]) -> list[float]:
    """Those of the values that are there and finite."""
    return [value for value in values if value is not None and not is_missing(value)]


def mean_of(values: Iterable[float | None]) -> tuple[float | None, int]:
    """The plain mean of the defined values (None if there are none), and how many they are."""
    found = defined(values)
    return (math.fsum(found) / len(found) if found else None), len(found)


def spread(values: Sequence[float | None]) -> str:
    """`.829 ± .012` over seeds; the count where a figure is undefined for some of them."""
    mean, count = mean_of(values)
    text = format_value(mean)
    if count > 1:
        text += f" ± {format_value(statistics.stdev(defined(values)))}"
    return f"{text} ({count} of {len(values)})" if 0 < count < len(values) else text
