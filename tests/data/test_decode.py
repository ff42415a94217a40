"""Decoding: modes, sizes, masks, and files that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data.decode import Geometry, load_image, read_image
from imvad_jax.data.mask_arrays import shrink
from imvad_jax.data.masks import read_mask, read_masks
from imvad_jax.errors import UserError


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return str(path)


def test_rgb_is_resized_antialiased_then_cropped(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    path = save(tmp_path / "a.png", image)
    resized = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(load_image(path, Geometry(32, 32)), resized)
    np.testing.assert_array_equal(load_image(path, Geometry(32, 28)), resized[2:30, 2:30])


def test_grey_has_one_channel_and_sixteen_bits_are_scaled(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    deep = grey.astype(np.uint16) * 257
    geometry = Geometry(8, 8)
    one = load_image(save(tmp_path / "g.png", grey), geometry)
    two = load_image(save(tmp_path / "d.png", deep), geometry)
    assert one.shape == (8, 8, 1)
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(load_image(save(tmp_path / "d.tif", deep), geometry), one)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1", "LA"])
def test_other_modes_are_read(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (16, 16), (200, 10, 10)).convert(mode).save(path)
    assert load_image(str(path), Geometry(16, 16)).shape[-1] == (1 if mode in "1LA" else 3)


def test_floating_point_images_lie_in_0_to_1(tmp_path):
    path = save(tmp_path / "f.tif", np.full((8, 8), 0.5, np.float32))
    assert load_image(path, Geometry(8, 8)).max() == 128
    path = save(tmp_path / "g.tif", np.full((8, 8), 7.0, np.float32))
    with pytest.raises(UserError, match=r"g.tif.*expected 0 ... 1"):
        read_image(path)


def test_exif_rotation_turns_image_and_mask_check(tmp_path):
    image = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    path = tmp_path / "r.jpg"
    image.save(path, exif=exif)
    assert read_image(str(path)).size == (10, 20)
    mask = save(tmp_path / "m.png", np.zeros((20, 10), np.uint8))
    assert read_mask(mask, str(path)).shape == (20, 10)


def test_mask_by_the_benchmarks_rule(tmp_path):
    mask = np.zeros((4, 4), np.uint8)
    mask[:2, :1] = 255  # after halving: one pixel half covered, which counts
    mask[3, 3] = 255  # a quarter covered, which does not
    image = save(tmp_path / "i.png", np.zeros((4, 4, 3), np.uint8))
    path = save(tmp_path / "m.png", mask)
    resized = np.asarray(Image.fromarray(mask).resize((16, 16), Image.Resampling.BILINEAR))
    found = shrink(read_mask(path, image), Geometry(16, 16))
    np.testing.assert_array_equal(found, resized >= 127.5)
    assert not shrink(read_masks((), image), Geometry(16, 16)).any()


def test_any_non_zero_value_is_defect(tmp_path):
    image = save(tmp_path / "i.png", np.zeros((8, 8, 3), np.uint8))
    path = save(tmp_path / "m.png", np.eye(8, dtype=np.uint8))
    assert shrink(read_mask(path, image), Geometry(8, 8)).sum() == 8


def test_mis_sized_mask_is_named_with_both_sizes(tmp_path):
    image = save(tmp_path / "i.png", np.zeros((8, 9, 3), np.uint8))
    path = save(tmp_path / "m.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match=r"m\.png.*8 x 8.*9 x 8"):
        read_mask(path, image)


def test_unreadable_files_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = Path(save(tmp_path / "a.png", noise)).read_bytes()
    contents = {"cut.png": data[: len(data) // 2], "empty.png": b"", "text.png": b"hi"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_image(str(tmp_path / name))
    with pytest.raises(UserError, match="no such file"):
        read_image(str(tmp_path / "none.png"))


@pytest.mark.parametrize("size, crop", [(4, 4), (256, 300), (256, 4)])
def test_impossible_geometry(size, crop):
    with pytest.raises(UserError, match="(image|crop)_size"):
        Geometry(size, crop)
