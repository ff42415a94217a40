"""Regions of a map above a threshold, in pixels of the image."""

import dataclasses
from typing import cast

import contourpy
import numpy as np
from scipy import ndimage

from imvad_jax.data.decode import Geometry
from imvad_jax.evaluation.calibration import Scale

MOST = 50  # regions of an image that are listed, the highest peaks first


@dataclasses.dataclass(frozen=True)
class Placement:
    """The position of a map on an image of `width x height` pixels.

    The image was resized to a square and the square cropped (`geometry`); the map covers the
    crop, stretched to `rows x columns` values.
    """

    geometry: Geometry
    rows: int
    columns: int
    width: int
    height: int

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Maps corners of map pixels `[N, 2]` (x, y) to positions in the image, in pixels."""
        stretch = np.array([self.geometry.crop / self.columns, self.geometry.crop / self.rows])
        square = self.geometry.offset + np.asarray(xy, float) * stretch
        return square * [self.width / self.geometry.size, self.height / self.geometry.size]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The part of the image that the map covers: left, top, right, bottom."""
        corners = self.points(np.array([[0, 0], [self.columns, self.rows]]))
        left, top, right, bottom = (int(value) for value in corners.round().ravel())
        return left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class Region:
    """A connected region (8 neighbours) of a map above the threshold.

    `box`, `outlines` and `area` are in pixels of the image.
    """

    peak: float  # its largest value on the scale where the threshold is 0.5
    box: tuple[int, int, int, int]  # left, top, right, bottom; the last two just outside
    area: float
    # [N, 2] x and y each, closed; the longest is the outer one
    outlines: tuple[np.ndarray, ...] = dataclasses.field(repr=False)

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "peak": self.peak,
            "box": list(self.box),
            "area": round(self.area, 1),
            "outlines": [line.round(1).tolist() for line in self.outlines],
        }


def find_regions(
    anomaly_map: np.ndarray, scale: Scale, placement: Placement
) -> tuple[list[Region], int]:
    """Finds regions of a map `[h, w]`, highest peak first, at most `MOST`; also their number."""
    above = ndimage.label(anomaly_map > scale.threshold, np.ones((3, 3)))
    labels, count = cast("tuple[np.ndarray, int]", above)
    if not count:
        return [], 0
    numbers = np.arange(1, count + 1)
    peaks = ndimage.maximum(anomaly_map, labels, numbers)
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, numbers)
    slices = ndimage.find_objects(labels)
    # Pixels of the picture a pixel of the map.
    left, top, right, bottom = placement.box
    pixel = (right - left) * (bottom - top) / anomaly_map.size
    regions = []
    for index in np.argsort(-peaks, kind="stable")[:MOST]:
        window = rows, columns = slices[index]
        corners = np.array([[columns.start, rows.start], [columns.stop, rows.stop]])
        first, last = placement.points(corners)
        size = (placement.width, placement.height)
        left, top = np.floor(first)
        right, bottom = np.minimum(np.ceil(last), size)
        regions.append(
            Region(
                float(scale.normalize(float(peaks[index]))),
                (int(left), int(top), int(right), int(bottom)),
                float(sizes[index] * pixel),
                tuple(
                    placement.points(line)
                    for line in _outlines(anomaly_map, labels == index + 1, window, scale.threshold)
                ),
            )
        )
    return regions, int(count)


def _outlines(
    anomaly_map: np.ndarray, region: np.ndarray, window: tuple[slice, slice], threshold: float
) -> list[np.ndarray]:
    """Finds the borders of a region at the threshold, longest first: map corners `[N, 2]`.

    Between pixels the border is interpolated, as smooth as the map is.
    """
    rows, columns = window
    # One pixel around the region, at the edge of the map made up: the lines close within it.
    around = (slice(rows.start, rows.stop + 2), slice(columns.start, columns.stop + 2))
    own = np.pad(region, 1)[around]
    values = np.pad(anomaly_map.astype(np.float64), 1, mode="edge")[around]
    step = max(np.ptp(values), 1e-6 * abs(threshold), 1e-12)
    below = threshold - 1e-3 * step  # also other regions, which may reach into the window
    values = np.where(own, values, np.minimum(values, below))
    found = contourpy.contour_generator(z=values).lines(threshold - 1e-6 * step)
    lines = cast("list[np.ndarray]", found)  # of the kind that is the default
    # Centres of the padded pixels to corners of the map's.
    lines = [line + [columns.start - 0.5, rows.start - 0.5] for line in lines]
    lines = [np.clip(line, 0, anomaly_map.shape[::-1]) for line in lines]
    return sorted(lines, key=lambda line: -np.prod(np.ptp(line, axis=0)))
