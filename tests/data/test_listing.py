"""Every file of a folder is a picture that is read, or is named with the reason."""

import os

import pytest
from PIL import Image

from imvad_jax.data import image_files, listing
from imvad_jax.data.decode import read_image
from imvad_jax.data.listing import BELOW, OTHER, UNKNOWN, list_folder, summarize
from imvad_jax.errors import UserError
from tests.data.odd_files import picture

READ = ("a.png", "b.JFIF", "c.jpe", "d.pgm", "e.ppm", "f.gif", "g.jp2", "h.TIFF", "i.webp", "j.bmp",
        "without_suffix")  # fmt: skip
FORMATS = {"b.JFIF": "JPEG", "c.jpe": "JPEG", "without_suffix": "PNG", "g.jp2": "JPEG2000"}
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def write_all(folder) -> None:
    for name in READ:
        picture().save(folder / name, FORMATS.get(name))
    picture().save(folder / "raw.nef", "TIFF")  # a camera's own: a TIFF around a small preview
    (folder / "IMG_0042.HEIC").write_bytes(HEIC)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / ".hidden.png").write_bytes(b"")


def test_pictures_are_read_by_suffix_or_content_and_the_rest_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "has_heif", lambda: False)
    write_all(tmp_path)
    found = list_folder(tmp_path)
    assert [os.path.basename(path) for path in found.images] == sorted(READ)
    for path in found.images:
        assert read_image(path).size == picture().size
    others = {os.path.basename(item.path): (item.why, item.picture) for item in found.not_used}
    assert others == {
        "raw.nef": (UNKNOWN, True), "IMG_0042.HEIC": (UNKNOWN, True), "Thumbs.db": (OTHER, False),
    }  # fmt: skip
    line = summarize(len(found.images), found.not_used)
    assert line.startswith("11 images; not used: 2 of unknown type (IMG_0042.HEIC, raw.nef; pip ")
    assert "1 of no picture format (Thumbs.db)" in line


def test_heic_is_taken_where_its_library_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "has_heif", lambda: True)
    write_all(tmp_path)
    assert str(tmp_path / "IMG_0042.HEIC") in list_folder(tmp_path).images


def test_heic_is_read_by_its_library(tmp_path):
    pytest.importorskip("pillow_heif")
    assert image_files.has_heif()
    picture(1).save(tmp_path / "a.heic", "HEIF", quality=95)
    assert read_image(str(tmp_path / "a.heic")).size == picture().size


def test_folders_below_are_counted_or_taken(tmp_path):
    for name in ("a.png", "line_b/a.png", "line_b/deep/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    (tmp_path / "line_b" / "notes.txt").write_text("no picture")
    os.symlink(tmp_path, tmp_path / "line_b" / "circle")
    flat = list_folder(tmp_path)
    assert len(flat.images) == 1 and [item.why for item in flat.not_used] == [BELOW, BELOW]
    assert "2 in folders below (deep, line_b; --recursive takes them)" in summarize(
        1, flat.not_used
    )
    assert len(list_folder(tmp_path, recursive=True).images) == 3
    assert list_folder(tmp_path / "nowhere") == ([], [])


def test_a_document_named_like_a_picture_starts_no_program(tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match=r"part\.png: not a readable image \(of no known format"):
        read_image(str(path))


def test_smaller_pages_behind_a_picture_are_allowed(tmp_path):
    image, path = picture(1), str(tmp_path / "scan.tif")
    small = [image.resize((24, 20)), image.resize((12, 10))]
    image.save(path, save_all=True, append_images=small)
    assert read_image(path).tobytes() == image.tobytes()
    image.save(path, save_all=True, append_images=[small[0]] * 17)
    with pytest.raises(UserError, match="more than 16 pages"):
        read_image(path)


def test_the_limit_of_size_can_be_moved(tmp_path):
    path = str(tmp_path / "a.png")
    Image.new("L", (1200, 1000)).save(path)
    with pytest.raises(UserError, match="1200 x 1000 pixels; at most 1 megapixels.*max_mega"):
        image_files.read_head(path, 1)
    assert image_files.read_head(path, 1.2).shown == (1200, 1000)
