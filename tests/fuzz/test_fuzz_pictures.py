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
from tests.data import odd_files
from tests.data import test_masks as good_masks
from tests.fuzz.mutations import EDITS, checked_png, edited
from tests.fuzz.trials import Trials, sized

pytestmark = pytest.mark.slow

PICTURES, MASKS = 3000, 2000  # files of all formats together
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
    paths = {name: good_masks.save(folder, name, image) for name, image in good_masks.KINDS.items()}
    return {name: (folder / name).read_bytes() for name in paths}


def _reader(number):
    """One of the ways in which pictures are read."""
    if number == len(_READERS):
        return lambda path: (read_head(str(path)), find_full_scale([str(path)]))
    return lambda path: load_image(str(path), Geometry(16, 16), _READERS[number])


def _put(path, content, edits, recheck):
    content = edited(content, edits)
    path.write_bytes(checked_png(content) if recheck and path.suffix == ".png" else content)


def test_pictures(tmp_path, record_property):
    good, trials = _good_pictures(tmp_path / "good"), Trials("pictures")

    @sized(PICTURES)
    @given(
        st.sampled_from(sorted(good)), EDITS, st.booleans(), st.integers(0, len(_READERS))
    )  # fmt: skip
    def look(name, edits, recheck, number):
        path = tmp_path / name
        _put(path, good[name], edits, recheck)
        found = trials.look(_reader(number), path, path)
        if isinstance(found, np.ndarray):
            assert found.dtype == np.uint8 and found.shape in ((16, 16, 1), (16, 16, 3))

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > PICTURES // 10 and trials.found["loaded"] > PICTURES // 10


def test_masks(tmp_path, record_property):
    good, trials = _good_masks(tmp_path / "good"), Trials("masks")
    photo = tmp_path / "photo.bmp"
    Image.new("RGB", (good_masks.SIDE, good_masks.SIDE)).save(photo)

    def read(path):
        rule, _ = survey([(str(path), str(photo))], published=False)
        return read_mask(str(path), str(photo), rule)

    @sized(MASKS)
    @given(st.sampled_from(sorted(good)), EDITS, st.booleans())
    def look(name, edits, recheck):
        path = tmp_path / name
        _put(path, good[name], edits, recheck)
        found = trials.look(read, path, path)
        assert found is None or (found.shape == (good_masks.SIDE,) * 2 and found.dtype == bool)

    look()
    record_property("figures", trials.line)
    assert trials.found["refused"] > MASKS // 10 and trials.found["loaded"] > MASKS // 10
