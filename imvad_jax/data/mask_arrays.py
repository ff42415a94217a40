"""Masks resized to the input size, and the defect regions that vanish there."""

from typing import NamedTuple, cast

import numpy as np
from PIL import Image
from scipy import ndimage

from imvad_jax.data.decode import Geometry, crop

_EIGHT_CONNECTED = np.ones((3, 3), bool)


class Regions(NamedTuple):
    """Defect regions (8-connected) at a mask's own size, and how many of them vanish."""

    total: int
    vanished: int


def shrink(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A mask `[H, W]` as bool `[crop, crop]`, by the geometry's `mask_rule`.

    `half`: bilinear and at least one half, as the benchmark; `nearest`: the nearest pixel; `full`:
    bilinear and 1 exactly, which leaves out what a defect covers in part.
    """
    resized = _resize(mask, (geometry.size, geometry.size), geometry.mask_rule)
    return _is_defect(np.asarray(crop(resized, geometry)), geometry.mask_rule)


def shrink_whole(mask: np.ndarray, size: tuple[int, int], rule: str = "half") -> np.ndarray:
    """As `shrink`, of the whole mask to another width and height: bool `[height, width]`."""
    return _is_defect(np.asarray(_resize(mask, size, rule)), rule)


def _resize(mask: np.ndarray, size: tuple[int, int], rule: str) -> Image.Image:
    nearest = rule == "nearest"
    # Whatever images are resized by: overshooting filters have no meaning for a mask.
    by = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return Image.fromarray(mask.astype(np.uint8) * 255).resize(size, by)


def _is_defect(values: np.ndarray, rule: str) -> np.ndarray:
    return values == 255 if rule == "full" else values >= 128


def count_regions(
    mask: np.ndarray, small: np.ndarray, size: tuple[int, int], offset: int = 0
) -> Regions:
    """Counts the regions of a mask `[H, W]` and those that left no pixel in its shrunken form.

    A region is left where a pixel that it covers is set, also one that it shares with others:
    neighbouring dots that become one line have not vanished.

    Args:
      mask: bool `[H, W]`, at its own size.
      small: bool `[h, w]`, what `shrink` or `shrink_whole` made of it.
      size: Width and height in pixels of the whole shrunken mask, of which `small` is a part.
      offset: First row and column of that part.
    """
    labels, total = cast("tuple[np.ndarray, int]", ndimage.label(mask, _EIGHT_CONNECTED))
    if not total:
        return Regions(0, 0)
    where = np.nonzero(mask)
    cells = [
        ((index + 0.5) * new / old).astype(int) - offset
        for index, new, old in zip(where, size[::-1], mask.shape)
    ]
    inside = np.logical_and.reduce([(c >= 0) & (c < n) for c, n in zip(cells, small.shape)])
    left = small[cells[0][inside], cells[1][inside]]
    ids = labels[where][inside][left]
    return Regions(total, total - len(np.unique(ids)))
