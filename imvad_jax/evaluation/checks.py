"""What the metrics accept: shapes, finite scores, binary labels and masks."""

import warnings
from collections.abc import Sequence

import numpy as np

from imvad_jax.errors import UserError


class MetricWarning(UserWarning):
    """A metric is undefined (NaN), or defined and meaningless, on the given data."""


def warn(message: str) -> None:
    """Warns in the name of the caller of a public function of this package."""
    warnings.warn(message, MetricWarning, stacklevel=3)


def as_scores(values, what: str) -> np.ndarray:
    """Returns `values` as float32 (float16 and float32 input) or float64 (anything else).

    The precision is kept, never lowered: rounding would create ties that the detector did not make.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise UserError(f"{what}: expected real numbers, found dtype {values.dtype}")
    narrow = values.dtype in (np.float16, np.float32)
    return values.astype(np.float32 if narrow else np.float64, copy=False)


def as_binary(values, what: str) -> np.ndarray:
    """Returns `values` as bool; raises UserError if anything but 0 and 1 is among them."""
    values = np.asarray(values)
    if values.dtype == bool:
        return values
    if values.dtype.kind not in "fiu":
        raise UserError(f"{what}: expected 0 and 1, found dtype {values.dtype}")
    if values.dtype == np.uint8:  # the common case, without a temporary
        if values.size and values.max() > 1:
            raise UserError(f"{what}: expected 0 and 1, found {values.max()}; binarise it first")
        return values.view(bool)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        raise UserError(f"{what}: expected 0 and 1, found {values[wrong][0]}; binarise it first")
    return values.astype(bool)


def image_inputs(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores [N] float and labels [N] bool, or raises UserError."""
    scores, labels = as_scores(scores, "scores"), as_binary(labels, "labels")
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise UserError(
            f"scores {scores.shape} and labels {labels.shape}: expected two arrays of one shape [N]"
        )
    if not scores.size:
        raise UserError("scores: expected at least one, found none")
    bad = ~np.isfinite(scores)
    if bad.any():
        raise UserError(
            f"scores: {bad.sum()} of {bad.size} are NaN or infinite, "
            f"the first at image {bad.argmax()}"
        )
    return scores, labels


def _shape(images) -> str:
    if isinstance(images, np.ndarray):
        return str(images.shape)
    shapes = {np.shape(image) for image in images}
    return f"{len(images)} of shape {shapes.pop()}" if len(shapes) == 1 else f"{len(images)} images"


def pixel_inputs(
    maps: np.ndarray | Sequence, masks: np.ndarray | Sequence
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns N maps [H, W] of one float dtype and N masks [H, W] bool, or raises UserError.

    Args:
      maps: [N, H, W], or N arrays [H, W] whose sizes may differ.
      masks: like `maps`, of 0 and 1.
    """
    if not hasattr(maps, "__len__") or not hasattr(masks, "__len__"):
        raise UserError("maps and masks: expected arrays [N, H, W] or sequences of arrays [H, W]")
    # Anything array-like (a JAX array) becomes NumPy once, not image by image.
    maps, masks = (x if isinstance(x, (list, tuple)) else np.asarray(x) for x in (maps, masks))
    if len(maps) != len(masks):
        raise UserError(
            f"maps ({_shape(maps)}) and masks ({_shape(masks)}): expected one mask for each map"
        )
    if not len(maps):
        raise UserError("maps: expected at least one, found none")
    maps = [as_scores(m, f"map of image {i}") for i, m in enumerate(maps)]
    masks = [as_binary(m, f"mask of image {i}") for i, m in enumerate(masks)]
    for i, (m, mask) in enumerate(zip(maps, masks)):
        if m.ndim != 2 or m.shape != mask.shape:
            raise UserError(
                f"image {i}: map {m.shape} and mask {mask.shape}: expected one shape [H, W]; "
                "resize one to the other"
            )
    bad = [m.size - np.count_nonzero(np.isfinite(m)) for m in maps]
    if any(bad):
        first = next(i for i, count in enumerate(bad) if count)
        raise UserError(
            f"maps: {sum(bad)} values in {np.count_nonzero(bad)} of {len(maps)} maps are NaN or "
            f"infinite, the first in image {first}"
        )
    dtype = np.result_type(*{m.dtype for m in maps})
    return [m.astype(dtype, copy=False) for m in maps], masks
