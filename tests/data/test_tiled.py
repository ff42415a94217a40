"""Tiles of image files: the same pixels, however they are asked for, and each file decoded once."""

import zlib

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data import stream
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry, Reader, read_image
from imvad_jax.data.tiled import TiledImages, tile_batches
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from tests.data.trees import mvtec_tree, write_image

SIZES = ((48, 32), (20, 70), (33, 33))  # height, width
TILING, GEOMETRY = Tiling(20, 4), Geometry(20, 20)


@pytest.fixture
def paths(tmp_path):
    for number, size in enumerate(SIZES):
        write_image(tmp_path / f"{number}.png", number, size, grey=number == 1)
    return [str(tmp_path / f"{number}.png") for number in range(len(SIZES))]


@pytest.fixture
def reads(monkeypatch):
    """The files that are decoded, in order."""
    found = []
    read = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, path: found.append(path) or read(self, path))
    return found


def pixels_of(paths) -> np.ndarray:
    """All tiles by plain slicing."""
    tiles = []
    for path in paths:
        image = np.asarray(read_image(path).convert("RGB"))
        height, width = image.shape[:2]
        for number in range(TILING.count(width, height)):
            left, top, right, bottom = TILING.box(number, width, height)
            tiles.append(image[top:bottom, left:right])
    return np.stack(tiles)


def all_tiles(images, batch_size=4, order=None) -> np.ndarray:
    return np.concatenate([b.images[b.valid] for b in images.batches(batch_size, order)])


def test_tiles_are_the_files_own_pixels_and_a_file_is_decoded_once(paths, reads):
    images, expected = TiledImages.of_files(paths, TILING, GEOMETRY), pixels_of(paths)
    reads.clear()
    assert len(images) == len(expected) == 6 + 5 + 4
    np.testing.assert_array_equal(all_tiles(images), expected)
    assert sorted(reads) == sorted(paths)
    (*_, last) = images.batches(4)
    assert last.valid.tolist() == [True] * 3 + [False] and not last.images[3].any()
    files, numbers = images.locate(np.array([0, 5, 6, 14]))
    assert files.tolist() == [0, 0, 1, 2] and numbers.tolist() == [0, 5, 0, 3]


@pytest.mark.parametrize("kept", ["in a file", "for the moment"])
def test_kept_tiles_are_the_same_in_any_order(paths, reads, tmp_path, kept):
    place = tmp_path / "tiles.raw" if kept == "in a file" else None
    images, expected = TiledImages.of_files(paths, TILING, GEOMETRY), pixels_of(paths)
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_array_equal(all_tiles(images, order=order), expected[order])
    del reads[:]
    stored = images.keep(place, lambda batches, total: batches)
    assert sorted(reads) == sorted(paths)
    if place:
        stored = images.keep(place, lambda batches, total: batches)
    np.testing.assert_array_equal(all_tiles(stored, order=order), expected[order])
    part = stored.take([2, 0])
    np.testing.assert_array_equal(all_tiles(part), np.concatenate([expected[11:], expected[:6]]))
    np.testing.assert_array_equal(all_tiles(part), all_tiles(images.take([2, 0])))
    assert sorted(reads) == sorted([*paths, paths[2], paths[0]])


def test_tiles_are_resized_as_whole_images_are(paths):
    geometry = Geometry(10, 10)
    images = TiledImages.of_files(paths[:1], TILING, geometry)
    tile = Image.fromarray(pixels_of(paths[:1])[1]).resize((10, 10), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(all_tiles(images)[1], np.asarray(tile))


def test_files_to_be_judged_give_the_same_tiles_and_bad_ones_are_named(paths, tmp_path):
    write_image(tmp_path / "small.png", 5, (19, 60))
    (tmp_path / "bad.png").write_bytes(b"no")
    mixed = [paths[0], str(tmp_path / "small.png"), paths[1], str(tmp_path / "bad.png"), paths[2]]
    files, bad = stream.decode_files(mixed, GEOMETRY, 16, 2, tiling=TILING), []
    batches = list(tile_batches(files, TILING, GEOMETRY, 4, bad.append))
    assert [(file.number, file.error.split(";")[0]) for file in bad] == [
        (1, "60 x 19 pixels, smaller than a tile"),
        (3, "not a readable image (of no known format"),
    ]
    found = np.concatenate([batch.images[: len(batch.tiles)] for batch in batches])
    np.testing.assert_array_equal(found, pixels_of(paths))
    names = [(file.number, number) for batch in batches for file, number in batch.tiles]
    assert names == [(f, n) for f, count in ((0, 6), (2, 5), (4, 4)) for n in range(count)]
    assert all(file.whole is None for batch in batches for file, _ in batch.tiles)


def test_a_category_in_tiles(tmp_path, caplog, reads):
    mvtec_tree(tmp_path / "data")
    given = ("mvtec_ad", str(tmp_path / "data"), "bottle", GEOMETRY, str(tmp_path / "cache"))
    data = open_category(*given, tiling=TILING)
    assert not reads and len(data.train) == 6 * 9 and len(data.train_names) == 6
    assert [mask.shape for mask in data.masks] == [(40, 40)] * 5
    assert [int(mask.sum()) for mask in data.masks] == [0, 0, 225, 225, 225]
    divided = data.hold_out(0.3, 0)
    assert len(divided.held_out) == 2 * 9 and len(divided.train) == 4 * 9
    assert divided.held_out.paths[0].endswith(divided.held_out_names[0])
    kept = open_category(*given, tiling=TILING, keep_tiles=True)
    (raw,) = (tmp_path / "cache").iterdir()
    size = 6 * 9 * 20 * 20 * 3
    content = raw.read_bytes()
    assert content[size:] == b"crc32 of the tiles: %08x\n" % zlib.crc32(content[:size])
    np.testing.assert_array_equal(all_tiles(kept.train), all_tiles(data.train))
    raw.write_bytes(content[:size])  # as it was before there was a check: only its size counts
    open_category(*given, tiling=TILING, keep_tiles=True)
    assert len(raw.read_bytes()) == size
    raw.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with caplog.at_level("WARNING"):
        kept = open_category(*given, tiling=TILING, keep_tiles=True)
    assert f"{raw}: the stored tiles are damaged" in caplog.text and raw.read_bytes() == content
    np.testing.assert_array_equal(all_tiles(kept.train), all_tiles(data.train))


def test_categories_that_cannot_be_tiled(tmp_path):
    mvtec_tree(tmp_path)
    given = ("mvtec_ad", str(tmp_path), "bottle")
    with pytest.raises(
        UserError, match=r"000\.png: 40 x 40 pixels, smaller than a tile; .*48 x 48"
    ):
        open_category(*given, GEOMETRY, None, tiling=Tiling(48, 0))
    with pytest.raises(UserError, match="crop_size=16: .* add crop_size=0"):
        open_category(*given, Geometry(20, 16), None, tiling=TILING)
    with pytest.raises(UserError, match="give data_dir"):
        open_category("mvtec_ad", None, "bottle", GEOMETRY, str(tmp_path), tiling=TILING)
    damaged = tmp_path / "bottle/train/good/003.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    data = open_category(*given, GEOMETRY, None, tiling=TILING)
    with pytest.raises(UserError, match=r"003\.png: not a readable image"):
        all_tiles(data.train)


def test_a_picture_that_is_turned_is_cut_upright(tmp_path):
    write_image(tmp_path / "a.jpg", 0, (30, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    images = TiledImages.of_files([str(tmp_path / "turned.jpg")], TILING, GEOMETRY)
    assert images.sizes == [(30, 50)]
    np.testing.assert_array_equal(all_tiles(images), pixels_of(images.paths))
    (picture,) = images.pictures(25)
    assert picture.shape == (25, 15, 3)
