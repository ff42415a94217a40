"""The example scripts that load exports: what they read, and what they say of missing packages."""

import dataclasses
import runpy
import sys
import types

import numpy as np
import pytest
from PIL import Image

from imvad_jax import api
from imvad_jax.data.decode import Reader
from imvad_jax.export import check, whole

NEEDS = {"stablehlo": "flatbuffers", "savedmodel": "tensorflow", "onnx": "onnxruntime"}
SIZE = 8


def script(kind: str, monkeypatch) -> dict:
    """The names of an example; its runtime need not be installed, as nothing is run in it."""
    for name in ("tensorflow", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    return runpy.run_path(str(check.EXAMPLES / f"score_{kind}.py"))


def metadata(**fields) -> dict:
    shape = {"resize": [SIZE, SIZE], "resample": "bilinear", "crop": [0, 0, SIZE, SIZE]}
    return {"input": shape | fields}


def plain(value, dtype) -> Image.Image:
    return Image.fromarray(np.full((SIZE, SIZE), value, dtype))


# Picture, suffix, full scale of the metadata, the value read.
PICTURES = {
    "8 bits": (plain(200, np.uint8), "png", None, 200),
    "8 bits of a deeper detector": (plain(200, np.uint8), "png", 1023, 200),
    "16 bits": (plain(40000, np.uint16), "png", None, 156),  # 155.6
    "10 of 16 bits": (plain(700, np.uint16), "png", 1023, 174),  # 174.5 and a little less
    "brighter than white": (plain(2000, np.uint16), "png", 1023, 255),
    "8 of 16 bits": (plain(77, np.uint16), "tif", 255, 77),
    "32 bits": (plain(40000, np.int32), "tif", None, 156),
    "12 of 32 bits": (plain(1000, np.int32), "tif", 4095, 62),  # 62.3
    "below zero": (plain(-5, np.int32), "tif", None, 0),
    "big-endian": (
        Image.frombytes("I;16B", (SIZE, SIZE), np.full(SIZE**2, 40000, ">u2").tobytes()),
        "tif", None, 156,
    ),
    "floats": (plain(0.5, np.float32), "tif", None, 128),  # 127.5, to the even one
    "floats beyond": (plain(1.5, np.float32), "tif", None, 255),
    "floats to 255": (plain(51.0, np.float32), "tif", 255, 51),
}  # fmt: skip


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize("kind", NEEDS)
def test_pictures_are_read_by_the_full_scale_of_the_metadata(kind, case, tmp_path, monkeypatch):
    picture, suffix, full_scale, expected = PICTURES[case]
    path = tmp_path / f"picture.{suffix}"
    picture.save(path)
    found = script(kind, monkeypatch)["read"](path, metadata(full_scale=full_scale))
    assert found.dtype == np.uint8 and found.shape == (SIZE, SIZE, 3)
    assert (found == expected).all(), found[0, 0]


@pytest.mark.parametrize("kind", NEEDS)
def test_exports_without_a_full_scale_are_read_by_the_type_of_the_file(kind, tmp_path, monkeypatch):
    plain(40000, np.uint16).save(tmp_path / "picture.png")
    found = script(kind, monkeypatch)["read"](tmp_path / "picture.png", metadata())
    assert (found == 156).all()


@pytest.mark.parametrize("kind", NEEDS)
def test_a_missing_package_is_named_in_one_line(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, NEEDS[kind], None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(check.EXAMPLES / f"score_{kind}.py"))
    said = str(ended.value)
    assert "\n" not in said and said.count(NEEDS[kind]) == 2 and "pip install" in said


def test_the_full_scale_of_the_run_is_in_the_metadata(monkeypatch):
    monkeypatch.setattr(whole.Whole, "output_shapes", lambda _: {})  # of no meaning here
    model = api.make("raw_color", image_size=64, crop_size=0)
    for reader, expected in ((Reader(), None), (Reader(full_scale=1023), 1023)):
        found = whole.Whole(dataclasses.replace(model, reader=reader), {}).metadata(0)
        assert found["input"]["full_scale"] == expected
