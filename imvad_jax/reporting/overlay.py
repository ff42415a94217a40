"""Draws the heat map over an image, with outline and box of each region, at its aspect."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from imvad_jax.data.decode import Geometry
from imvad_jax.evaluation.calibration import Scale
from imvad_jax.marks import MARK
from imvad_jax.model.regions import Placement, Region, find_regions
from imvad_jax.reporting import heatmaps

# Ends of the colour scale where 0.5 is the threshold: what is usual in good images is not coloured.
LOW, HIGH = 0.25, 0.9
BOX = (255, 255, 255)
THUMBNAIL = 240  # longest side, pixels


def enlarged(picture: Image.Image) -> Image.Image:
    """A small picture enlarged by a whole factor, so that lines can be drawn on it."""
    factor = -(-heatmaps.MIN_SIDE // max(picture.size))
    if factor <= 1:
        return picture
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.NEAREST)


def add_heat(
    picture: Image.Image, anomaly_map: np.ndarray, scale: Scale, placement: Placement
) -> Image.Image:
    """The map `[h, w]` in colour over an RGB picture; outside of what the map covers, it is as is.

    The colours mean the same in all pictures of a run: they follow the calibrated scale.
    """
    ratio = np.array([picture.width / placement.width, picture.height / placement.height] * 2)
    left, top, right, bottom = (np.array(placement.box) * ratio).round().astype(int)
    size = (max(right - left, 1), max(bottom - top, 1))
    values = Image.fromarray(scale.normalize(anomaly_map.astype(np.float32)).astype(np.float32))
    values = np.asarray(values.resize(size, Image.Resampling.BILINEAR))
    covered = np.asarray(picture.crop((left, top, left + size[0], top + size[1])))
    colors, scaled = heatmaps.colorize(values, LOW, HIGH)
    heated = picture.copy()
    heated.paste(Image.fromarray(heatmaps.blend(covered, colors, scaled)), (int(left), int(top)))
    return heated


def draw_regions(
    picture: Image.Image, regions: Sequence[Region], placement: Placement
) -> Image.Image:
    """A copy of the picture with the outline (green) and the box (white) of each region."""
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    ratio = np.array([picture.width / placement.width, picture.height / placement.height])
    width = 1 if max(picture.size) < 500 else 2
    for region in regions:
        first, last = np.array(region.box, float).reshape(2, 2) * ratio
        draw.rectangle([*(first - 2), *(last + 1)], outline=BOX)
        lines = [[tuple(point) for point in line * ratio] for line in region.outlines]
        for color, thickness in ((heatmaps.OUTLINE_EDGE, width + 2), (heatmaps.OUTLINE, width)):
            for line in lines:
                draw.line(line, fill=color, width=thickness, joint="curve")
    return drawn


def as_jpeg(picture: Image.Image, quality: int = 88) -> bytes:
    """The bytes of a JPEG file."""
    file = io.BytesIO()
    # Without subsampling thin coloured lines stay whole.
    picture.save(file, "JPEG", quality=quality, subsampling=0, comment=MARK)
    return file.getvalue()


def thumbnail(picture: Image.Image) -> bytes:
    """A small JPEG of the picture."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return as_jpeg(small, 80)


class Presented(NamedTuple):
    """What a person is shown of one image."""

    regions: list[Region] | None  # None: an image-only method
    num_regions: int | None
    heatmap: bytes | None  # a JPEG at the size of the picture
    thumbnails: tuple[bytes, ...]  # JPEGs: the picture, and the heat map where there is one


def present(
    picture: Image.Image,
    size: tuple[int, int],
    anomaly_map: np.ndarray | None,
    scale: Scale | None,
    geometry: Geometry,
) -> Presented:
    """Finds the regions of a map and draws them.

    Args:
      picture: RGB, the whole image at the size it is to be drawn.
      size: Width and height of the image itself, the unit of boxes and outlines.
      anomaly_map: `[h, w]`, or None for an image-only method.
      scale: Of the map's values; None as the map.
      geometry: How the image was shaped for the detector.
    """
    picture = enlarged(picture)
    if anomaly_map is None:
        return Presented(None, None, None, (thumbnail(picture),))
    assert scale is not None  # there is one where there is a map
    rows, columns = anomaly_map.shape
    placement = Placement(geometry, rows, columns, *size)
    regions, count = find_regions(anomaly_map, scale, placement)
    heated = add_heat(picture, anomaly_map, scale, placement)
    drawn = draw_regions(heated, regions, placement)
    heated.thumbnail((THUMBNAIL, THUMBNAIL))
    small = draw_regions(heated, regions, placement)  # lines drawn anew: shrunk ones vanish
    return Presented(regions, count, as_jpeg(drawn), (thumbnail(picture), as_jpeg(small, 80)))
