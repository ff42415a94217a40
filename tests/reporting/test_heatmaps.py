"""Panels: what is drawn where."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from imvad_jax.reporting import heatmaps
from imvad_jax.reporting.predictions_file import unpack_masks
from tests.reporting.made_up import made_up_predictions


def test_color_range_ignores_single_pixels():
    maps = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (4, 100, 1))
    maps[0, 0, 0] = 1e6
    low, high = heatmaps.color_range(maps)
    assert low == pytest.approx(0, abs=0.02)
    assert high == pytest.approx(1, abs=0.02)


def test_color_range_samples_large_maps():
    maps = np.random.default_rng(0).random((40, 256, 256), np.float32)
    assert heatmaps.color_range(maps) == pytest.approx((0.01, 0.999), abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-30, np.nan])
def test_constant_maps_are_drawn_dark(value):
    maps = np.full((2, 8, 8), value, np.float32)
    low, high = heatmaps.color_range(maps)
    assert low < high
    colors, scaled = heatmaps.colorize(maps[0], low, high)
    assert (scaled == 0).all()
    assert colors.max() < 10


def test_outline_lies_on_the_border_of_the_mask():
    image = np.full((40, 50, 3), 128, np.uint8)
    mask = np.zeros((40, 50), bool)
    mask[10:20, 15:40] = True
    mask[30:, 45:] = True  # cut by the edge of the image
    drawn = heatmaps.draw_outline(image, mask)
    green = (drawn == heatmaps.OUTLINE).all(-1)
    dark = (drawn == heatmaps.OUTLINE_EDGE).all(-1)
    square = np.ones((3, 3))
    np.testing.assert_array_equal(green, mask & ~ndimage.binary_erosion(mask, square))
    np.testing.assert_array_equal(dark, ndimage.binary_dilation(mask, square) & ~mask)
    assert (drawn[~green & ~dark] == 128).all()
    assert (image == 128).all()  # the argument is left alone


def test_empty_mask_draws_nothing():
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(heatmaps.draw_outline(image, np.zeros((20, 20), bool)), image)


def test_blend_is_clear_where_the_map_is_low():
    image = np.full((2, 2, 3), 200, np.uint8)
    colors = np.zeros((2, 2, 3), np.uint8)
    mixed = heatmaps.blend(image, colors, np.array([[0, 1], [0, 1]], np.float32))
    assert (mixed[:, 0] == 200).all()
    assert (mixed[:, 1] == 50).all()


@pytest.mark.parametrize(
    ("size", "tile"),
    [((64, 64), (192, 192)), ((256, 256), (256, 256)), ((1024, 1024), (512, 512)),
     ((1024, 512), (512, 256)), ((50, 100), (100, 200))],
)  # fmt: skip
def test_panel_sizes(size, tile):
    assert heatmaps.tile_size(*size) == tile
    image = np.zeros((*size, 3), np.uint8)
    picture = heatmaps.panel(
        image, np.zeros((16, 16)), np.ones(size, bool), low=0, high=1, caption="caption"
    )
    scale = heatmaps.GAP + heatmaps.BAR_WIDTH + heatmaps.BAR_LABEL_WIDTH
    width = 3 * tile[1] + 4 * heatmaps.GAP + scale
    assert picture.size == (width, tile[0] + heatmaps.CAPTION_HEIGHT + heatmaps.GAP)


def test_panel_tiles():
    image = np.full((256, 256, 3), 90, np.uint8)
    anomaly_map = np.zeros((256, 256), np.float32)
    anomaly_map[100:150, 100:150] = 10
    mask = anomaly_map > 0
    pixels = np.asarray(heatmaps.panel(image, anomaly_map, mask, low=0, high=10, caption="x"))
    left, middle, right = (
        pixels[heatmaps.CAPTION_HEIGHT :, heatmaps.GAP + n * (256 + heatmaps.GAP) :][:256, :256]
        for n in range(3)
    )
    np.testing.assert_array_equal(left, heatmaps.draw_outline(image, mask))
    assert (middle[0, 0] == 90).all()
    assert middle[125, 125].tolist() != [90, 90, 90]
    assert right[0, 0].max() < 10  # dark
    assert right[125, 125].min() > 150  # bright


def test_image_only_panel():
    image = np.zeros((256, 256, 3), np.uint8)
    picture = heatmaps.panel(
        image, None, None, low=0, high=1, caption="a caption that is too long " * 20
    )
    assert picture.size[0] == 256 + 2 * heatmaps.GAP


def test_thin_scratches_survive_shrinking():
    mask = np.zeros((1024, 1024), bool)
    mask[500, 100:900] = True
    picture = heatmaps.panel(
        np.zeros((1024, 1024, 3), np.uint8), None, mask, low=0, high=1, caption=""
    )
    assert (np.asarray(picture) == heatmaps.OUTLINE).all(-1).sum() >= 400


def test_long_captions_keep_both_ends():
    text = heatmaps._shorten("scratch · " + "x" * 300 + "/end.png", 200)
    assert text.startswith("scr")
    assert text.endswith(".png")
    assert "…" in text
    assert heatmaps._font(heatmaps.FONT_SIZE).getlength(text) <= 200


def test_picture_names_are_unique_and_plain():
    paths = [
        "test/a/0.png",
        "test/a-0.png",
        "TEST/A/0.jpg",
        "test/a/0.bmp",
        "x/<b>?#%.png",
        "é.tif",
    ]
    names = heatmaps.picture_names(paths)
    assert names[:2] == ["test-a-0.png", "test-a-0-2.png"]
    assert len({name.lower() for name in names}) == len(paths)
    assert names[4] == "x-_b____.png"
    assert names[5] == "é.png"
    assert names == heatmaps.picture_names(paths)


def test_write_heatmaps(tmp_path):
    predictions, masks = made_up_predictions()
    np.testing.assert_array_equal(unpack_masks(predictions), masks)
    images = (np.full((32, 32, 3), 10 * n, np.uint8) for n in range(6))
    written = []
    names = heatmaps.write_heatmaps(tmp_path / "maps", images, predictions, written.append)
    assert sum(written) == 6
    assert sorted(names) == sorted(path.name for path in (tmp_path / "maps").iterdir())
    corner = heatmaps.GAP + 1, heatmaps.CAPTION_HEIGHT + 1
    for number, name in enumerate(names):
        with Image.open(tmp_path / "maps" / name) as picture:
            assert picture.getpixel(corner) == (10 * number,) * 3


def test_write_heatmaps_without_maps_and_masks(tmp_path):
    predictions, _ = made_up_predictions(with_maps=False)
    del predictions["mask"]
    images = [np.zeros((32, 32, 3), np.uint8)] * 6
    assert len(heatmaps.write_heatmaps(tmp_path, images, predictions)) == 6
