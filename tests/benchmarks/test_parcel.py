"""The parcel gives back the decoded caches bit for bit, and refuses what is none."""

import dataclasses

import numpy as np
import pytest

from imvad_jax.benchmarks.suite import parcel
from imvad_jax.data import layouts
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.decoded_cache import fingerprint
from imvad_jax.data.demo import write_demo_dataset
from imvad_jax.data.reading import AS_IS
from imvad_jax.errors import UserError

GEOMETRIES = (
    Geometry(64, 64), Geometry(64, 56, "bilinear", "full"), Geometry(64, 56, "lanczos", "nearest"),
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The category drawn, opened at each geometry, and its fingerprint."""
    root = tmp_path_factory.mktemp("parts")
    write_demo_dataset(root, ["hexnut"], train=4, test_good=2, test_per_defect=1, progress=False)
    files = layouts.read_category(layouts.get("mvtec_ad"), str(root), "hexnut", 0, False)
    versions = [open_category("mvtec_ad", str(root), "hexnut", g, None) for g in GEOMETRIES]
    return versions, fingerprint(files, AS_IS)


@pytest.mark.parametrize("channels", [1, 3])
def test_filter_is_undone(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 7, channels), np.uint8)
    assert (parcel.unfiltered(parcel.filtered(images)) == images).all()


def test_filter_gives_differences():
    images = np.arange(8, dtype=np.uint8).reshape(1, 2, 4, 1)
    # Differences along both axes: 0 but for the first row and column.
    assert parcel.filtered(images)[0, ..., 0].tolist() == [[0, 1, 1, 1], [4, 0, 0, 0]]


def test_unpacked_caches_are_the_images(drawn, tmp_path):
    versions, mark = drawn
    path = parcel.pack(tmp_path, versions, mark)
    assert parcel.unpack(path, tmp_path / "cache") == list(GEOMETRIES)
    for data, geometry in zip(versions, GEOMETRIES, strict=True):
        found = open_category("mvtec_ad", None, "hexnut", geometry, str(tmp_path / "cache"))
        assert (found.train.images == data.train.images).all()
        assert (found.test.images == data.test.images).all()
        assert (found.masks == data.masks).all() and found.masks.any()
        assert found.train_names == data.train_names and found.test_names == data.test_names
        assert found.test_defects == data.test_defects
        assert found.found == dataclasses.replace(data.found, not_used=found.found.not_used)


def test_a_crop_of_the_same_filter_takes_no_room(drawn, tmp_path):
    versions, mark = drawn
    with np.load(parcel.pack(tmp_path, versions, mark)) as archive:
        assert "difference1" not in archive.files and "difference2" in archive.files


def test_parcel_is_not_unpacked_twice(drawn, tmp_path):
    path = parcel.pack(tmp_path, *drawn)
    parcel.unpack(path, tmp_path / "cache")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    parcel.unpack(path, tmp_path / "cache")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before


def test_another_size_is_refused(drawn, tmp_path):
    parcel.pack(tmp_path, *drawn)
    with pytest.raises(UserError, match="holds hexnut at 64 pixels; expected 256$"):
        parcel.find(tmp_path, "--data_cache", [Geometry(256, 256)])
    with pytest.raises(UserError, match="was made for other presets"):
        parcel.find(tmp_path, "--data_cache", GEOMETRIES[:1])
    assert len(parcel.find(tmp_path, "--data_cache", GEOMETRIES)) == 1


def test_what_is_no_parcel_is_refused_and_kept(drawn, tmp_path):
    with pytest.raises(UserError, match="no file \\*.parcel.npz there"):
        parcel.find(tmp_path, "--data_cache", GEOMETRIES)
    path = tmp_path / "mvtec_ad-hexnut.parcel.npz"
    path.write_bytes(b"mine")
    for call in (lambda: parcel.read_meta(path), lambda: parcel.unpack(path, tmp_path)):
        with pytest.raises(UserError, match="not a parcel of imvad suite, or damaged"):
            call()
    with pytest.raises(UserError, match="was not written by this program"):
        parcel.pack(tmp_path, *drawn)
    assert path.read_bytes() == b"mine"
