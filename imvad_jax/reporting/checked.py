"""What the JSON files beside a run's record may hold: looked at before they are drawn."""

import math
from collections.abc import Mapping
from typing import Any

from imvad_jax.reporting.metric_names import METRICS, is_missing

_LONGEST = 1e10  # seconds, 300 years


def check_metrics(metrics: Mapping[str, Any]) -> None:
    """Raises ValueError where a figure that tables show is no number from 0 to 1, or undefined."""
    for metric in METRICS:
        value = metrics.get(metric.key)
        if value is not None and not (_is_number(value) and (is_missing(value) or 0 <= value <= 1)):
            raise ValueError(f"{metric.key} is {value!r:.40}, expected a number from 0 to 1")


def check_timings(stages: Mapping[str, Any]) -> None:
    """Raises ValueError where a stage of the timings has no seconds."""
    for name, stage in stages.items():
        if not isinstance(stage, Mapping):
            raise ValueError(f"{name:.40} is {stage!r:.40}, expected an object with wall_s")
        for field in ("wall_s", "waiting_s"):
            value = stage.get(field)
            if value is None and field == "waiting_s":
                continue
            if not (_is_number(value) and math.isfinite(value) and abs(value) <= _LONGEST):
                raise ValueError(f"{name:.40}: {field} is {value!r:.40}, expected seconds")


def check_audit(found: Mapping[str, Any]) -> None:
    """Raises ValueError where the lines of an audit are no texts."""
    lines = found.get("lines")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ValueError(f"lines is {lines!r:.40}, expected a list of texts")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
