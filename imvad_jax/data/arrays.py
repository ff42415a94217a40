"""Converts images in memory, such as PIL images and arrays, to 8-bit images."""

from typing import Any

import numpy as np
from PIL import Image

from imvad_jax.data.depth import deep_kind
from imvad_jax.data.image_files import MIN_SIDE, Refused, grey_or_rgb, orientation_of, turn
from imvad_jax.errors import UserError

_EXPECTED = "expected [H, W], [H, W, 1], [H, W, 3] (RGB) or [H, W, 4] (RGBA)"


def as_picture(given: Any) -> Image.Image:
    """A picture of mode "L" or "RGB" from a PIL image or an array; alpha is left out, as of files.

    Args:
      given: A PIL image of 8 bits, turned upright if its EXIF data says so; or an array `[H, W]`,
        `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]`, uint8 or floats from 0 to 1.

    Raises:
      UserError: it is none of these, or smaller than 8 pixels.
    """
    if isinstance(given, Image.Image):
        if _is_deep(given):
            raise UserError(
                f"a picture of mode {given.mode} is deeper than 8 bits; give the path of its file, "
                "which is read on the model's full scale"
            )
        found = grey_or_rgb(given)
        found = turn(found, orientation_of(given, loaded=True))
    else:
        found = Image.fromarray(eight_bits(np.asarray(given)))
    if min(found.size) < MIN_SIDE:
        raise UserError(
            f"a picture of {found.width} x {found.height} pixels; expected at least "
            f"{MIN_SIDE} x {MIN_SIDE}"
        )
    return found


def _is_deep(image: Image.Image) -> bool:
    try:
        return bool(deep_kind(image))
    except Refused:
        return True


def eight_bits(array: np.ndarray) -> np.ndarray:
    """One picture as uint8 `[H, W]` or `[H, W, 3]`; see `as_picture`. Raises UserError."""
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        array = array[..., 0] if array.shape[2] == 1 else array[..., :3]
    elif array.ndim != 2:
        raise UserError(f"an array of shape {list(array.shape)}; {_EXPECTED}")
    return np.ascontiguousarray(as_uint8(array))


def as_uint8(array: np.ndarray) -> np.ndarray:
    """Values from 0 to 255 from uint8 or from floats in [0, 1], in their own shape.

    Raises:
      UserError: another type, or floats outside of that range or that are no numbers.
    """
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"an array of {array.dtype}; expected uint8 from 0 to 255 or floats from 0 to 1"
        )
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not 0 <= low <= high <= 1:
        raise UserError(
            f"an array of {array.dtype} with values from {low:g} to {high:g}; expected floats from "
            "0 to 1, or uint8 from 0 to 255"
        )
    return (array * 255 + 0.5).astype(np.uint8)
