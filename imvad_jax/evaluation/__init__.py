"""Metrics of one category, their means over categories, and thresholds. On the host, in NumPy."""

from imvad_jax.evaluation.calibration import Calibration, calibrate, read_calibration
from imvad_jax.evaluation.checks import MetricWarning
from imvad_jax.evaluation.image_level import image_metrics
from imvad_jax.evaluation.pixel_level import pixel_metrics
from imvad_jax.evaluation.summary import mean_over_categories
from imvad_jax.evaluation.threshold import f1_at, f1_max, quantile_threshold

__all__ = [
    "Calibration",
    "MetricWarning",
    "calibrate",
    "f1_at",
    "f1_max",
    "image_metrics",
    "mean_over_categories",
    "pixel_metrics",
    "quantile_threshold",
    "read_calibration",
]
