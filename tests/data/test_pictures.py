"""Folders of pictures."""

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data.pictures import read_pictures
from imvad_jax.errors import UserError
from tests.data.trees import write_image


def test_pictures_are_found_in_folders_resized_and_grey_ones_broadcast(tmp_path):
    write_image(tmp_path / "woven" / "b.PNG", 1, (30, 50))
    write_image(tmp_path / "a.jpg", 2, (16, 16), grey=True)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = read_pictures(str(tmp_path), 16)
    assert found.shape == (2, 16, 16, 3) and found.dtype == np.uint8
    with Image.open(tmp_path / "a.jpg") as grey, Image.open(tmp_path / "woven" / "b.PNG") as color:
        np.testing.assert_array_equal(found[0], np.repeat(np.asarray(grey)[..., None], 3, -1))
        resized = color.resize((16, 16), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[1], np.asarray(resized))


def test_of_too_many_pictures_every_folder_keeps_a_share(tmp_path):
    for folder in range(3):
        for number in range(4):
            path = tmp_path / str(folder) / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (8, 8), 80 * folder + number).save(path)
    found = read_pictures(str(tmp_path), 8, most=3)
    assert found[:, 0, 0, 0].tolist() == [0, 80, 160]


def test_a_missing_or_empty_folder_and_a_damaged_picture_are_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such directory"):
        read_pictures(str(tmp_path / "nowhere"), 16)
    with pytest.raises(UserError, match=f"{tmp_path}: no image files"):
        read_pictures(str(tmp_path), 16)
    write_image(tmp_path / "a.png", 0)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:100])
    with pytest.raises(UserError, match=r"b\.png: not a readable image"):
        read_pictures(str(tmp_path), 16)
