"""Which files an input means, and what is read of them."""

import contextlib
import os

import numpy as np
import pytest

from imvad_jax.data.decode import Geometry, read_image
from imvad_jax.data.inputs import display_names, find_images
from imvad_jax.data.listing import CLOSED, NotUsed
from imvad_jax.data.stream import decode_files, picture_batches
from imvad_jax.errors import UserError
from tests.data.odd_files import picture, write_bad, write_good

GEOMETRY = Geometry(16, 16)


def test_a_folder_stands_for_all_images_below_it(tmp_path):
    names = write_good(tmp_path / "parts")
    found = find_images([str(tmp_path / "parts")]).images
    assert sorted(display_names(found)) == names
    assert len(names) == 17


def test_files_patterns_and_folders_are_taken_once(tmp_path):
    for name in ("b.png", "a.png", "c [1].jpg", "d.gif"):
        picture().save(tmp_path / name)

    def found(*inputs):
        listing = find_images([str(tmp_path / given) for given in inputs])
        return [os.path.basename(path) for path in listing.images]

    assert found("") == ["a.png", "b.png", "c [1].jpg", "d.gif"]
    assert found("b.png", "*.png", "") == ["b.png", "a.png", "c [1].jpg", "d.gif"]
    assert found("c [1].jpg") == ["c [1].jpg"]  # a name before it is a pattern
    assert found("d.gif") == ["d.gif"]  # named itself
    assert found("[ab].*") == ["a.png", "b.png"]
    assert found("**") == ["a.png", "b.png", "c [1].jpg", "d.gif"]


def test_inputs_that_name_nothing(tmp_path):
    for given in ("nowhere", "no*.png", ""):
        with pytest.raises(UserError, match="input"):
            find_images([str(tmp_path / given)])


def test_what_an_earlier_run_wrote_is_left_out(tmp_path):
    for name in ("a.png", "out/heatmaps/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture().save(tmp_path / name)
    assert len(find_images([str(tmp_path)]).images) == 2
    (found,) = find_images([str(tmp_path)], leave_out=tmp_path / "out").images
    assert found == str(tmp_path / "a.png")
    with pytest.raises(UserError, match="only image files there were written"):
        find_images([str(tmp_path / "out")], leave_out=tmp_path / "out")


def test_names_are_relative_to_the_shared_folder_and_always_text(tmp_path):
    paths = [str(tmp_path / "x" / "a.png"), str(tmp_path / "y" / "a.png")]
    assert display_names(paths) == ["x/a.png", "y/a.png"]
    assert display_names(paths[:1]) == ["a.png"]
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff.png")
    assert display_names([odd]) == ["\\xff.png"]


def test_odd_pictures_are_read(tmp_path):
    write_good(tmp_path)
    for path in find_images([str(tmp_path)]).images:
        image = read_image(path)
        rotated = "rotated" in path
        assert image.size == ((40, 48) if rotated else (48, 40)), path
        found = np.asarray(image.convert("RGB")).astype(int)
        found = np.rot90(found) if rotated else found
        error = np.abs(found - np.asarray(picture(1)).astype(int)).mean()
        assert error < 6, path


def test_bad_files_are_refused_with_the_reason(tmp_path):
    reasons = write_bad(tmp_path)
    assert len(reasons) >= 20
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=reason) as caught:
            read_image(str(tmp_path / name))
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("name", ["pages.tif", "animated.png", "animated.webp"])
def test_damage_of_any_kind_is_an_error_with_a_name(tmp_path, name):
    write_bad(tmp_path)
    whole, path = (tmp_path / name).read_bytes(), str(tmp_path / name)
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 300), 5):
            data[place] = rng.integers(256)
        (tmp_path / name).write_bytes(data)
        with contextlib.suppress(UserError):  # an image may be left, nothing else may be raised
            assert min(read_image(path).size) >= 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_refused(tmp_path):
    picture().save(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    os.chmod(tmp_path / "a.png", 0)
    os.chmod(tmp_path / "closed", 0)
    found = find_images([str(tmp_path)])
    assert found.images == [str(tmp_path / "a.png")]
    with pytest.raises(UserError, match="Permission denied"):
        read_image(found.images[0])
    assert found.not_used == [NotUsed(str(tmp_path / "closed"), CLOSED, "", True)]
    os.chmod(tmp_path / "closed", 0o700)


def test_batches_are_full_whatever_cannot_be_read(tmp_path):
    paths = []
    for number in range(11):
        paths.append(str(tmp_path / f"{number}.png"))
        picture(number).save(paths[-1])
    for number in (0, 4, 5):
        (tmp_path / f"{number}.png").write_bytes(b"no")
    bad = []
    files = decode_files(paths, GEOMETRY, side=20, ahead=3)
    batches = list(picture_batches(files, 4, bad.append))
    assert [file.number for file in bad] == [0, 4, 5]
    assert all(file.error and not file.error.startswith("/") for file in bad)
    assert [[file.number for file in batch.files] for batch in batches] == [
        [1, 2, 3, 6], [7, 8, 9, 10],
    ]  # fmt: skip
    assert all(batch.images.shape == (4, 16, 16, 3) for batch in batches)
    first = batches[0].files[0]
    assert first.picture.size == (20, 17) and first.size == (48, 40)
    last = list(picture_batches(decode_files(paths[1:3], GEOMETRY, 20, 0), 4, bad.append))
    assert len(last) == 1 and len(last[0].files) == 2 and (last[0].images[2:] == 0).all()
