"""Regions of a map in pixels of the picture, and their drawings."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from imvad_jax.data.decode import Geometry
from imvad_jax.evaluation.calibration import Scale
from imvad_jax.model.regions import MOST, Placement, find_regions
from imvad_jax.reporting import heatmaps, overlay

SCALE = Scale(0.5, 0.1)


def blob(row, column, size=32, radius=4.0):
    rows, columns = np.mgrid[:size, :size]
    return np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / radius**2).astype(np.float32)


def area(line):
    """Of a polygon, pixels."""
    x, y = line[:-1].T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


@pytest.mark.parametrize("width, height", [(320, 160), (20, 90)])
def test_box_and_outline_lie_where_the_picture_has_it(width, height):
    placement = Placement(Geometry(32, 32), 32, 32, width, height)
    (region,), count = find_regions(blob(10, 20), SCALE, placement)
    assert count == 1
    rows, columns = np.nonzero(blob(10, 20) >= 0.5)
    expected = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    expected = expected * np.tile([width / 32, height / 32], 2)
    assert np.abs(np.array(region.box) - expected).max() < 1
    # The level set of the blob is a circle of radius 4 sqrt(ln 2) map pixels.
    (line,) = region.outlines
    assert (line[0] == line[-1]).all()
    circle = np.pi * 16 * np.log(2) * width * height / 32**2
    assert area(line) == pytest.approx(circle, rel=0.05)
    middle = line[:-1].mean(0) / [width / 32, height / 32]
    assert middle == pytest.approx([20.5, 10.5], abs=0.1)
    assert region.area == pytest.approx(len(rows) * width * height / 32**2, rel=1e-6)
    assert region.peak == pytest.approx(SCALE.normalize(1.0))


def test_a_cropped_map_is_placed_in_the_middle():
    placement = Placement(Geometry(40, 20), 20, 20, 400, 400)
    assert placement.box == (100, 100, 300, 300)
    (region,), _ = find_regions(np.pad([[1.0]], ((0, 19), (0, 19))), SCALE, placement)
    assert region.box == (100, 100, 110, 110)


def test_regions_at_edges_and_corners_are_closed_and_inside():
    placement = Placement(Geometry(8, 8), 8, 8, 80, 80)
    (whole,), _ = find_regions(np.ones((8, 8)), SCALE, placement)
    assert whole.box == (0, 0, 80, 80) and whole.area == 6400
    corners = np.zeros((8, 8))
    corners[[0, 0, 7, 7], [0, 7, 0, 7]] = [1, 2, 3, 4]
    regions, count = find_regions(corners, SCALE, placement)
    assert count == 4
    assert [region.box[:2] for region in regions] == [(70, 70), (0, 70), (70, 0), (0, 0)]
    for line in (line for region in [whole, *regions] for line in region.outlines):
        assert (line[0] == line[-1]).all() and line.min() >= 0 and line.max() <= 80


def test_neighbours_over_a_corner_are_one_region_and_a_hole_is_outlined():
    placement = Placement(Geometry(9, 9), 9, 9, 9, 9)
    (region,), _ = find_regions(np.pad(np.eye(2), 3, constant_values=0)[:9], SCALE, placement)
    assert region.area == pytest.approx(2 * 81 / 64, rel=0.3)
    ring = np.zeros((9, 9))
    ring[2:7, 2:7] = 1
    ring[4, 4] = 0
    (region,), _ = find_regions(ring, SCALE, placement)
    outer, hole = region.outlines
    assert area(outer) > 10 * area(hole) > 0


def test_a_region_within_the_window_of_another_is_not_outlined_with_it():
    map_ = np.zeros((12, 12))
    map_[1, 1:11] = map_[1:11, 1] = map_[10, 1:11] = 1  # a bracket
    map_[5:7, 5:7] = 2
    regions, count = find_regions(map_, SCALE, Placement(Geometry(12, 12), 12, 12, 12, 12))
    assert count == 2 and regions[0].box == (5, 5, 7, 7)
    assert len(regions[1].outlines) == 1


def test_nothing_below_the_threshold_and_a_limit_on_many():
    placement = Placement(Geometry(64, 64), 64, 64, 64, 64)
    assert find_regions(np.full((64, 64), 0.49), SCALE, placement) == ([], 0)
    specks = np.zeros((64, 64))
    specks[::4, ::4] = 1
    regions, count = find_regions(specks, SCALE, placement)
    assert len(regions) == MOST and count == 256


def test_a_presented_picture_keeps_its_aspect_and_shows_the_region():
    picture = Image.new("RGB", (300, 150), (90, 90, 90))
    found = overlay.present(picture, (600, 300), blob(10, 20), SCALE, Geometry(32, 32))
    assert found.num_regions == 1 and len(found.thumbnails) == 2
    drawn = np.asarray(overlay_of(found.heatmap)).astype(int)
    assert drawn.shape == (150, 300, 3)
    green = (drawn[..., 1] - drawn[..., [0, 2]].max(-1)) > 80
    rows, columns = ndimage.find_objects(green.astype(int))[0]
    box = np.array(found.regions[0].box) / 2
    assert np.abs([columns.start, rows.start, columns.stop, rows.stop] - box).max() <= 4
    assert np.abs(drawn[100:, :100] - 90).max() <= 3  # what is usual is not coloured
    small = overlay_of(found.thumbnails[0])
    assert small.size == (240, 120)


def test_an_image_only_method_has_the_picture_alone():
    found = overlay.present(Image.new("RGB", (5, 9)), (5, 9), None, None, Geometry(32, 32))
    assert found.regions is None and found.heatmap is None and len(found.thumbnails) == 1
    assert max(overlay_of(found.thumbnails[0]).size) >= heatmaps.MIN_SIDE


def overlay_of(data):
    import io

    return Image.open(io.BytesIO(data))
