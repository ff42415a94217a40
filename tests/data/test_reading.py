"""What a category's files give as a whole: everything used or named, bad files all at once."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data import decoded_cache
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.mask_arrays import Regions, count_regions, shrink
from imvad_jax.data.reading import Found, Reading, parse_full_scale
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from tests.data.trees import mvtec_tree, write_image, write_mask

GEOMETRY = Geometry(16, 16)


def folder(root, cache=None, **reading):
    return open_category("folder", str(root), root.name, GEOMETRY, cache and str(cache),
                         reading=Reading(**reading))  # fmt: skip


@pytest.fixture
def parts(tmp_path):
    """A user's labelled tree: 6 good images, 2 good and 3 defective to test."""
    return mvtec_tree(tmp_path, "parts") / "parts"


def spoil(parts, *names):
    for name in names:
        (parts / name).write_bytes(b"no picture")


BAD = ("train/good/001.png", "train/good/004.png", "test/scratch/002.png")


def test_all_bad_files_are_named_at_once(parts):
    spoil(parts, *BAD, "ground_truth/scratch/000_mask.png")
    os.symlink(parts / "nowhere.png", parts / "train/good/broken.png")
    with pytest.raises(UserError) as caught:
        folder(parts)
    text = str(caught.value)
    assert text.startswith("5 files cannot be used: ")
    for name in (*BAD, "ground_truth/scratch/000_mask.png"):
        assert f"{parts / name}: not a readable image" in text
    assert f"{parts}/train/good/broken.png: no such file (a broken link)" in text


@pytest.mark.parametrize("how", ["whole", "streamed", "tiles"])
def test_bad_images_are_skipped_and_named_where_that_is_said(parts, tmp_path, how):
    spoil(parts, *BAD)
    given = {"reading": Reading(on_bad_image="skip")}
    ways = {"whole": {}, "streamed": {"max_decoded_bytes": 1}, "tiles": {"tiling": Tiling(20, 5)}}
    given |= ways[how]
    for _ in range(2):  # decoded, then from the cache
        data = open_category("folder", str(parts), "parts", GEOMETRY, str(tmp_path / "c"), **given)
        assert [name[-7:] for name in data.train_names] == [f"{n:03}.png" for n in (0, 2, 3, 5)]
        assert len(data.test_names) == len(data.masks) == 4
        assert [mask.any() for mask in data.masks] == [False, False, True, True]
        assert data.found.line.startswith("8 images, 2 masks") or how == "tiles"
        assert "3 unreadable (001.png, 004.png, 002.png" in data.found.line
        assert sum(len(b.index[b.valid]) for b in data.train.batches(4)) == len(data.train)
    spoil(parts, *(f"train/good/{n:03}.png" for n in range(6)))
    with pytest.raises(UserError, match="none of 6 good images can be read"):
        open_category("folder", str(parts), "parts", GEOMETRY, None, **given)


def test_streamed_images_and_tiles_name_all_bad_files(parts):
    spoil(parts, *BAD[:2])
    data = open_category("folder", str(parts), "parts", GEOMETRY, None, max_decoded_bytes=1)
    with pytest.raises(UserError, match=r"^2 files cannot be used: .*001\.png.*004\.png"):
        list(data.train.batches(2))
    with pytest.raises(UserError, match=r"^2 files cannot be used: .*001\.png.*004\.png"):
        open_category("folder", str(parts), "parts", GEOMETRY, None, tiling=Tiling(20, 5))


def test_a_table_covers_all_images(parts):
    with pytest.raises(UserError, match="on_bad_image=skip: only with dataset=folder"):
        open_category("mvtec_ad", str(parts.parent), "parts", GEOMETRY, None,
                      reading=Reading(on_bad_image="skip"))  # fmt: skip
    with pytest.raises(UserError, match="recursive: only with dataset=folder"):
        open_category("mvtec_ad", str(parts.parent), "parts", GEOMETRY, None,
                      reading=Reading(recursive=True))  # fmt: skip


def test_masks_may_lie_beside_their_images(tmp_path):
    top = tmp_path / "parts"
    for number in range(3):
        write_image(top / f"train/good/{number}.png", number)
        write_image(top / f"test/good/{number}.png", 10 + number)
        for kind, image, mask in (
            ("named", "{}.png", "{}_MASK.PNG"),
            ("label", "{}.jpg", "{}_label.bmp"),
            ("same", "{}.jpg", "{}.png"),
        ):
            write_image(top / "test" / kind / image.format(number), 20 + number)
            write_mask(top / "test" / kind / mask.format(number))
    write_mask(top / "train/good/0_mask.png", value=0)
    data = folder(top)
    assert len(data.train_names) == 3 and data.labels.sum() == 9 and len(data.labels) == 12
    assert data.masks[data.labels == 1].any((1, 2)).all() and data.found.masks == 9
    assert "1 masks of good images (0_mask.png)" in data.found.line
    # A part and the photo of its label are two parts.
    write_image(top / "test/label/5.png", 50)
    write_image(top / "test/label/5_label.png", 51)
    with pytest.raises(UserError, match=r"5\.png: its mask is missing \(2 in all\)"):
        folder(top)


def test_masks_are_found_whatever_case_and_format(parts):
    masks = parts / "ground_truth/scratch"
    (masks / "000_mask.png").rename(masks / "000_mask.PNG")
    Image.open(masks / "001_mask.png").save(masks / "001.JPG", "JPEG", quality=90)
    write_mask(masks / "001_mask.TIFF", start=20)
    (masks / "001_mask.png").unlink()
    (masks / "notes.txt").write_text("by hand")
    data = folder(parts)
    assert data.found.masks == 3 and data.masks[data.labels == 1].any((1, 2)).all()
    assert "1 further masks of images that have one (001.JPG)" in data.found.line
    assert "1 of no picture format (notes.txt)" in data.found.line


def test_files_where_nobody_looks_are_named(parts):
    write_image(parts / "test/007.png", 1)
    write_image(parts / "train/bad/000.png", 2)
    write_image(parts / "validation/000.png", 3)
    line = folder(parts).found.line
    assert "1 where none is looked for (007.png)" in line
    assert "(train/bad) (000.png)" in line and "(validation) (000.png)" in line


def test_folders_below_are_taken_or_said_not_to_be(parts):
    write_image(parts / "train/good/cam2/000.png", 60)
    write_image(parts / "test/scratch/cam2/000.png", 61)
    write_mask(parts / "ground_truth/scratch/cam2/000_mask.png")
    data = folder(parts)
    assert len(data.train_names) == 6 and data.labels.sum() == 3
    assert "3 in folders below (cam2" in data.found.line
    data = folder(parts, recursive=True)
    assert len(data.train_names) == 7 and data.labels.sum() == 4
    assert "train/good/cam2/000.png" in data.train_names and data.found.masks == 4


def test_a_name_that_is_no_utf8_is_read_and_shown_as_text(parts, tmp_path):
    odd = os.fsdecode(os.fsencode(str(parts / "train/good")) + b"/gut_\xe4.png")
    os.rename(parts / "train/good/000.png", odd)
    for _ in range(2):  # decoded, then from the cache
        assert "train/good/gut_\\xe4.png" in folder(parts, tmp_path / "c").train_names


def test_masks_of_nearly_everything_are_noted(parts):
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save(
        parts / "ground_truth/scratch/001_mask.png"
    )
    (note,) = folder(parts).found.notes
    assert note == "1 masks mark more than half of their picture (test/scratch/001.png)"


def test_regions_that_vanish_are_counted():
    mask = np.zeros((64, 64), bool)
    mask[8:24, 8:24] = True
    mask[40:42, 40:42] = mask[50:52, 10:12] = True
    small = shrink(mask, GEOMETRY)
    assert count_regions(mask, small, (16, 16)) == Regions(3, 2)
    # Dots that become one line are still there.
    dotted = np.zeros((64, 64), bool)
    dotted[30:38] = np.arange(64) % 3 > 0
    assert count_regions(dotted, shrink(dotted, GEOMETRY), (16, 16)).vanished == 0
    # What lies outside the crop is not seen.
    cropped = Geometry(16, 8)
    assert count_regions(mask, shrink(mask, cropped), (16, 16), cropped.offset) == Regions(3, 2)
    mask[8:24, 8:24] = False
    mask[:8, :8] = True
    assert count_regions(mask, shrink(mask, cropped), (16, 16), cropped.offset) == Regions(3, 3)
    assert count_regions(mask & False, small, (16, 16)) == Regions(0, 0)


def test_full_scale_is_found_from_all_good_images(tmp_path):
    top = tmp_path / "camera"
    (top / "test/good").mkdir(parents=True)
    (top / "train/good").mkdir(parents=True)
    for number in range(4):
        values = np.random.default_rng(number).integers(0, 900 + 40 * number, (20, 20))
        values[0, 0] = 900 + 40 * number
        for part in ("train", "test"):
            values[0, 1] = 2000 if part == "test" and number == 2 else 0
            Image.fromarray(values.astype(np.uint16)).save(top / part / "good" / f"{number}.png")
    for cache in (None, tmp_path / "c", tmp_path / "c"):
        data = folder(top, cache)
        assert data.found.reader.full_scale == 1023 and "1023 is white" in data.found.line
        assert data.found.notes == ("test/good/2.png: 1 values above white (1023) cut off",)
        assert data.train.reader.full_scale == 1023
        assert data.train.images.max() >= 150
    assert folder(top, full_scale=4095.0).train.images.max() < 70


def test_other_ways_of_reading_make_other_caches(parts, tmp_path):
    for reading in ("", "mask_values=half", "mask_orientation=shown", "on_bad_image=skip"):
        folder(parts, tmp_path / "c", **dict(entry.split("=") for entry in reading.split()))
    files = sorted((tmp_path / "c").iterdir())
    assert len(files) == 4 and all(f"-v{decoded_cache.VERSION}-" in path.name for path in files)
    # A cache of before is passed over.
    old = tmp_path / "old" / "folder-parts-16-16-0123456789ab.npz"
    old.parent.mkdir()
    old.write_bytes(b"")
    folder(parts, old.parent)
    assert len(list(old.parent.iterdir())) == 2


def test_what_was_found_travels_through_json(parts):
    spoil(parts, BAD[0])
    found = folder(parts, on_bad_image="skip").found
    again = Found.from_dict(json.loads(json.dumps(found.as_dict())))
    assert again.line == found.line and again.reader == found.reader


def test_flags_that_make_no_sense_are_refused():
    assert parse_full_scale("auto") is None and parse_full_scale("4095") == 4095
    with pytest.raises(UserError, match="full_scale=much: expected auto or a number"):
        parse_full_scale("much")
    for name, value in (("full_scale", -1.0), ("max_megapixels", 0.0), ("on_bad_image", "no")):
        with pytest.raises(UserError, match=name):
            Reading(**{name: value})


# The masks of the cases are squares of 256 pixels; of "13" one of 1600 and five of 4 pixels.
CASES = {
    "01-16bit-label-masks/data": [256] * 4,
    "02-uppercase-mask-suffix/data": [256] * 4,
    "03-jpeg-masks/data": [256] * 4,
    "04-alpha-masks/data": [256] * 4,
    "10-masks-beside-images/data": [256] * 4,
    "11-folders-below/data/labelled": [256] * 4,
    "13-small-regions-vanish/data": [1600] * 3,
}


@pytest.mark.parametrize("case", CASES)
def test_masks_of_cases_that_went_wrong(shared, case):
    top = shared / "cases" / case
    if not top.is_dir():
        pytest.skip(f"no {top}")
    side = 256 if case.startswith("13") else 64
    data = open_category("folder", str(top), top.name, Geometry(side, side), None)
    found = data.masks[data.labels == 1].sum((1, 2))
    expected = np.array(CASES[case]) + (20 if case.startswith("13") else 0)
    np.testing.assert_allclose(found, expected, atol=4 if case.startswith("03") else 0)
    if case.startswith("13"):
        small = open_category("folder", str(top), top.name, Geometry(64, 64), None)
        assert (small.found.regions, small.found.vanished) == (18, 15)
    if case.startswith("11"):
        assert "13 in folders below (cam2" in data.found.line


@pytest.mark.parametrize("case", ["oblong", "square"])
def test_masks_of_turned_photos_lie_on_the_defect(shared, case):
    top = shared / "cases" / "15-exif-masks/data" / case
    if not top.is_dir():
        pytest.skip(f"no {top}")
    data = open_category("folder", str(top), top.name, Geometry(64, 64), None)
    good = data.train.images.astype(float).mean(0)
    for image, mask in zip(data.test.images[data.labels == 1], data.masks[data.labels == 1]):
        difference = np.abs(image.astype(float) - good).mean(-1)
        assert difference[mask].mean() > 5 * difference[~mask].mean()
    assert len(data.found.notes) == (case == "square")
