"""Images deeper than 8 bits: their stored values, and the value that counts as white."""

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from imvad_jax.data.image_files import MAX_MEGAPIXELS, Refused, open_image
from imvad_jax.errors import UserError, readable

# What cameras and programs store in 16 bits: of 8, 10, 12, 14 and 16 bits.
FULL_SCALES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
ROUNDING = 1e-3  # a share of full scale by which a floating-point value may exceed it

_INTEGER_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def deep_kind(image: Image.Image) -> str:
    """`integer` or `float` for an opened picture deeper than 8 bits, else empty.

    Raises:
      Refused: of a depth that cannot be read.
    """
    if image.mode in _INTEGER_MODES:
        return "integer"
    if image.mode == "F":
        return "float"
    if any(";16" in name for tile in getattr(image, "tile", ()) for name in _raw_modes(tile)):
        return "integer"
    bits = image.tag_v2.get(258, (8,)) if isinstance(image, TiffImageFile) else (8,)
    if max(bits) > 8:  # Pillow would take half of each value for a value
        raise Refused(f"{max(bits)}-bit colours in separate planes; store them pixel by pixel")
    return ""


def deep_values(image: Image.Image, path: str) -> np.ndarray:
    """The values of a picture that `deep_kind` calls deep, as they are stored.

    Pillow keeps the upper byte only of 16-bit colours: the lower one is read from the file again.

    Returns:
      `[H, W]`, or `[H, W, C]` of colours (C is 3 or 4) and of grey with alpha (C is 2).

    Raises:
      Refused: negative values, or some that are no number.
    """
    if image.mode in ("F", *_INTEGER_MODES):
        values = np.asarray(image)
    else:
        assert image.format  # it was opened from a file
        with Image.open(path, formats=[image.format]) as again:
            if any("LA;16B" in _raw_modes(tile) for tile in again.tile):
                # Opened as RGBA; the four bytes of a pixel are taken as they lie there.
                again.tile = [_renamed(tile, lambda name: "RGBA") for tile in again.tile]
                parts = np.asarray(again).astype(np.int32)
                values = parts[..., ::2] * 256 + parts[..., 1::2]
            else:
                upper = np.asarray(image).astype(np.int32)
                again.tile = [_lower_bytes(tile) for tile in again.tile]
                values = upper * 256 + np.asarray(again)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise Refused("holds values that are no number (NaN or infinite)")
    if values.min() < 0:
        raise Refused(f"holds negative values, {values.min():g} the lowest")
    return values


def _raw_modes(tile) -> tuple[str, ...]:
    arguments = (tile.args,) if isinstance(tile.args, str) else tile.args
    return tuple(item for item in arguments or () if isinstance(item, str))


def _renamed(tile, rename):
    if isinstance(tile.args, str):
        return tile._replace(args=rename(tile.args))
    return tile._replace(args=tuple(rename(a) if isinstance(a, str) else a for a in tile.args))


def _lower_bytes(tile):
    return _renamed(tile, lambda n: n[:-1] + _OTHER_BYTE[n[-1]] if ";16" in n else n)


def to_eight_bits(values: np.ndarray, full_scale: float | None) -> tuple[np.ndarray, int]:
    """Values from 0 to `full_scale` as uint8, and how many were brighter and are now white.

    Args:
      values: As `deep_values` gives them.
      full_scale: None: 65535 for integers, 1 for floating-point values.

    Raises:
      Refused: the values are of another kind than those that `full_scale` was found for; or,
        without a `full_scale`, floating-point values above 1.
    """
    floats = values.dtype.kind == "f"
    largest = float(values.max())
    if full_scale is None:
        full_scale = 1.0 if floats else FULL_SCALES[-1]
        if floats and largest > 1 + ROUNDING:
            raise Refused(
                f"floating-point values up to {largest:g}; expected 0 ... 1, or --full_scale=N"
            )
    elif not floats and full_scale <= 1:
        raise Refused(f"integers, but white is {full_scale:g}; expected floating-point values")
    elif floats and largest <= 1 and full_scale >= FULL_SCALES[0]:
        raise Refused(
            f"floating-point values up to {largest:g}, but white is {full_scale:g}; expected "
            "values on that scale"
        )
    slack = full_scale * ROUNDING if floats else 0
    brighter = int((values > full_scale + slack).sum())
    scaled = np.rint(values.astype(np.float64) * (255 / full_scale))
    return np.clip(scaled, 0, 255).astype(np.uint8), brighter


def find_full_scale(paths: Iterable[str], max_megapixels: float = MAX_MEGAPIXELS) -> float | None:
    """The value that counts as white in good pictures; None where none is deeper than 8 bits.

    It is the smallest of `FULL_SCALES` that no integer picture exceeds, and 1 where all deep ones
    hold floating-point values. Files that cannot be read are passed over; who decodes them names
    them.

    Raises:
      UserError: integers above 65535, floating-point values above 1, or both kinds in one category.
    """
    largest: dict[str, tuple[float, str]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, kind, top in pool.map(lambda path: _largest(path, max_megapixels), paths):
            if kind and top > largest.get(kind, (-1.0, ""))[0]:
                largest[kind] = top, path
    if len(largest) > 1:
        raise UserError(
            f"{readable(largest['integer'][1])} holds integers, {readable(largest['float'][1])} "
            "floating-point values; set the white level of all of them with --full_scale=N"
        )
    for kind, most in (("integer", FULL_SCALES[-1]), ("float", 1 + ROUNDING)):
        top, path = largest.get(kind, (0, ""))
        if top > most:
            raise UserError(
                f"{readable(path)}: values up to {top:g}; expected at most {most:.5g}, or "
                "--full_scale=N"
            )
    if "float" in largest:
        return 1.0
    if not largest:
        return None
    return next(scale for scale in FULL_SCALES if largest["integer"][0] <= scale)


def _largest(path: str, max_megapixels: float) -> tuple[str, str, float]:
    """The path, the kind of a deep picture (else empty) and its largest value."""
    try:
        with open_image(path, max_megapixels) as image:
            kind = deep_kind(image)
            top = float(without_alpha(deep_values(image, path)).max()) if kind else 0.0
            return path, kind, top
    except UserError:
        return path, "", 0.0


def without_alpha(values: np.ndarray) -> np.ndarray:
    """Deep values without the alpha channel of `[H, W, 2]` and `[H, W, 4]`."""
    if values.ndim == 2:
        return values
    return values[..., 0] if values.shape[-1] == 2 else values[..., :3]
