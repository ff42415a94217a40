"""Damaged pictures and masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from imvad_jax.data.decode import Geometry, Reader, load_image
from imvad_jax.data.depth import find_full_scale
from imvad_jax.data.image_files import read_head
from imvad_jax.data.masks import read_mask, survey
from tests.data import odd_files, test_masks
from tests.fuzz.mutations import EDITS, checked_png, edited
from tests.fuzz.trials import Trials, sized

pytestmark = pytest.mark.slow

PICTURES, MASKS = 2600, 1600  # files of all formats together
_READERS = (Reader(), Reader(4095.0), Reader(None, False))


def _good_pictures(folder):
    names = [name for name in odd_files.write_good(folder) if "/" not in name]
    image = odd_files.picture(5)
    for name in ("part.gif", "part.jp2", "part.ppm", "part.pgm", "lzw.tif", "lossy.webp"):
        how = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
        (image.convert("L") if name.endswith("pgm") else image).save(folder / name, **how)
        names.append(name)
    return {name: (folder / name).read_bytes() for name in names if name != "linked.png"}


def _good_masks(folder):
    folder.mkdir()
    paths = {name: test_masks.save(folder, name, image) for name, image in test_masks.KINDS.items()}
    return {name: (folder / name).read_bytes() for name in paths}


def _look(path):
    read_head(str(path))
    find_full_scale([str(path)])
    for reader in _READERS[:2]:
        with_reader = load_image(str(path), Geometry(16, 16), reader)
        assert with_reader.shape[:2] == (16, 16) and with_reader.dtype == np.uint8
    return _READERS[2].read(str(path)).image


def _put(path, content, edits, recheck):
    content = edited(content, edits)
    path.write_bytes(checked_png(content) if recheck and path.suffix == ".png" else content)


def test_pictures(tmp_path, record_property):
    good, trials = _good_pictures(tmp_path / "good"), Trials("pictures")

    @sized(PICTURES)
    @given(st.sampled_from(sorted(good)), EDITS, st.booleans())
    def look(name, edits, recheck):
        path = tmp_path / name
        _put(path, good[name], edits, recheck)
        found = trials.look(_look, path, path)
        assert found is None or (isinstance(found, Image.Image) and found.mode in ("L", "RGB"))

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > PICTURES // 10 and trials.found["loaded"] > PICTURES // 10


def test_masks(tmp_path, record_property):
    good, trials = _good_masks(tmp_path / "good"), Trials("masks")
    photo = tmp_path / "photo.bmp"
    Image.new("RGB", (test_masks.SIDE, test_masks.SIDE)).save(photo)

    def read(path):
        rules = [survey([(str(path), str(photo))], published)[0] for published in (True, False)]
        return [read_mask(str(path), str(photo), rule) for rule in rules][-1]

    @sized(MASKS)
    @given(st.sampled_from(sorted(good)), EDITS, st.booleans())
    def look(name, edits, recheck):
        path = tmp_path / name
        _put(path, good[name], edits, recheck)
        found = trials.look(read, path, path)
        assert found is None or (found.shape == (test_masks.SIDE,) * 2 and found.dtype == bool)

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > MASKS // 10 and trials.found["loaded"] > MASKS // 10
