"""The contact sheet as a user makes it."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.trees import mvtec_tree


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    top = tmp_path_factory.mktemp("sheet")
    data = mvtec_tree(top / "data", train=3, grey=True)

    def run_program(**given):
        given = {"augmentation": "scar", "data_dir": data, "out": top / "sheet.png"} | given
        arguments = [f"--{name}={value}" for name, value in given.items() if value is not None]
        command = [sys.executable, "-m", "experiments.contact_sheet", *arguments]
        return subprocess.run(command, capture_output=True, text=True), top / "sheet.png"

    return run_program


def test_originals_results_and_masks_stand_below_each_other(call):
    done, path = call(size=40, count=2)
    assert done.returncode == 0, done.stderr
    assert "2 images; rows: original, augmented, mask" in done.stdout
    picture = np.asarray(Image.open(path))
    assert picture.shape == (3 * 44 + 4, 2 * 44 + 4, 3)
    for column in (4, 48):
        original, augmented, mask = (
            picture[row : row + 40, column : column + 40] for row in (4, 48, 92)
        )
        assert set(np.unique(mask)) == {0, 255}
        changed = (original != augmented).any(-1)
        assert changed.any() and not changed[mask[..., 0] == 0].any()
    assert (picture[:4] == 128).all() and (picture[:, -4:] == 128).all()


def test_a_sheet_replaces_a_sheet_and_nothing_else(call, tmp_path):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (5, 5)).save(photo)
    before = photo.read_bytes()
    done, _ = call(out=photo, size=32, count=1)
    assert done.returncode == 2 and photo.read_bytes() == before
    assert f"error: --out: {photo}: is there already and was not written" in done.stderr
    photo.unlink()
    for _ in range(2):
        assert call(out=photo, size=32, count=1)[0].returncode == 0


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"augmentation": "scarf"}, "did you mean 'scar'"),
        ({"augmentation": None}, "--augmentation is missing"),
        ({"out": None}, "--out is missing"),
        ({"out": "sheet.txt"}, "ends in .png"),
        ({"data_dir": None}, "--data_dir is missing"),
        ({"category": "bottel"}, "did you mean 'bottle'"),
        ({"size": 4}, "--image_size=4"),
    ],
)
def test_bad_flags_end_in_one_line(call, given, expected):
    done, _ = call(**given)
    assert done.returncode == 2 and expected in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
