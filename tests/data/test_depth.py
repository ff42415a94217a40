"""Pictures deeper than 8 bits keep their grey levels, whatever part of their range they use."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data.decode import EVERY_DEPTH, Reader, read_image
from imvad_jax.data.depth import find_full_scale
from imvad_jax.errors import UserError


def ramp(top: float, dtype, shape=(12, 16)) -> np.ndarray:
    return np.linspace(0, top, np.prod(shape)).reshape(shape).astype(dtype)


def write_png16(path, values: np.ndarray) -> str:
    """A 16-bit PNG of any number of channels, every row by another of PNG's filters."""
    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    step, previous, rows = 2 * channels, np.zeros(2 * channels * width, int), b""
    for number, row in enumerate(values.astype(">u2").reshape(height, -1)):
        raw = np.frombuffer(row.tobytes(), np.uint8).astype(int)
        left = np.concatenate([np.zeros(step, int), raw[:-step]])
        predicted = (np.zeros_like(raw), left, previous)[number % 3]
        rows += bytes([number % 3]) + ((raw - predicted) % 256).astype(np.uint8).tobytes()
        previous = raw

    def chunk(kind: bytes, data: bytes) -> bytes:
        length, check = len(data), zlib.crc32(kind + data)
        return struct.pack(">I", length) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip
    return str(path)


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", ["png", "tif", "int32.tif"])
def test_a_camera_of_any_depth_gives_the_same_picture(tmp_path, top, kind):
    values = ramp(top, np.int32 if "int32" in kind else np.uint16)
    path = str(tmp_path / f"a.{kind}")
    Image.fromarray(values).save(path)
    assert find_full_scale([path]) == top
    found = np.asarray(Reader(top).read(path).image)
    expected = np.rint(values.astype(float) * 255 / top)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) == 12 * 16 and found.max() == 255
    # Written with the low bits empty, as other cameras do, it is the same.
    if top in (1023, 4095) and kind == "png":
        shifted = values.astype(int) * (65536 // (top + 1))
        Image.fromarray(shifted.astype(np.uint16)).save(path)
        assert find_full_scale([path]) == 65535
        assert np.abs(np.asarray(read_image(path)).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("top", [4095, 65535])
def test_both_bytes_of_sixteen_bit_colours_count(tmp_path, channels, top):
    values = np.random.default_rng(0).integers(0, top + 1, (9, 10, channels))
    values[0, 0] = top
    if channels != 3:
        values[..., -1] = 65535  # alpha
    path = write_png16(tmp_path / "a.png", values)
    assert find_full_scale([path]) == top
    found = np.asarray(Reader(float(top)).read(path).image)
    expected = np.rint(values * (255 / top)).astype(int)
    expected = expected[..., 0] if channels == 2 else expected[..., :3]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "tiff_lzw"])
def test_sixteen_bit_colour_tiffs(tmp_path, compression):
    """Pillow writes none, so the strips of an 8-bit file are declared to be of 16 bits."""
    values = np.random.default_rng(0).integers(0, 4096, (9, 10, 3))
    values[0, 0] = 4095
    path = tmp_path / "a.tif"
    as_bytes = values.astype("<u2").reshape(9, -1).view(np.uint8).reshape(9, 20, 3)
    Image.fromarray(as_bytes).save(path, compression=compression)
    data = bytearray(path.read_bytes())
    start = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[start : start + 2])[0]):
        place = start + 2 + 12 * entry
        tag, _, count, value = struct.unpack("<HHII", data[place : place + 12])
        if tag == 256:
            struct.pack_into("<I", data, place + 8, 10)
        if tag == 258:
            assert count == 3
            struct.pack_into("<HHH", data, value, 16, 16, 16)
    path.write_bytes(data)
    assert find_full_scale([str(path)]) == 4095
    found = np.asarray(Reader(4095.0).read(str(path)).image)
    np.testing.assert_array_equal(found, np.rint(values * (255 / 4095)))


def test_floating_point_is_up_to_1_or_what_the_flag_says(tmp_path):
    paths = [str(tmp_path / name) for name in ("unit.tif", "rounded.tif", "large.tif")]
    for path, top in zip(paths, (1, 1 + 1e-6, 1000)):
        Image.fromarray(ramp(top, np.float32)).save(path)
    assert find_full_scale(paths[:2]) == 1.0
    np.testing.assert_array_equal(read_image(paths[0]), read_image(paths[1]))
    np.testing.assert_array_equal(read_image(paths[0]), Reader(1000.0).read(paths[2]).image)
    with pytest.raises(UserError, match=r"large\.tif: values up to 1000; expected at most 1"):
        find_full_scale(paths)
    with pytest.raises(UserError, match="but white is 1000"):
        Reader(1000.0).read(paths[0])


def test_brighter_pixels_are_cut_off_and_named(tmp_path):
    path = str(tmp_path / "a.png")
    values = ramp(1000, np.uint16)
    values[0, :3] = 1500
    Image.fromarray(values).save(path)
    found = Reader(1023.0).read(path)
    assert found.remark == "3 values above white (1023) cut off"
    assert (np.asarray(found.image)[0, :3] == 255).all()


def test_what_cannot_be_scaled_is_refused_by_name(tmp_path):
    def write(name, values):
        Image.fromarray(values).save(tmp_path / name)
        return str(tmp_path / name)

    deep = write("deep.png", ramp(4095, np.uint16))
    with pytest.raises(UserError, match=r"deep\.png: 16 bits, but no value above 4095"):
        Reader(deep=False).read(deep)
    full = write("full.png", ramp(65535, np.uint16))
    np.testing.assert_array_equal(Reader(deep=False).read(full).image, read_image(full))
    with pytest.raises(UserError, match=r"deep\.png: integers, but white is 1"):
        Reader(1.0).read(deep)
    unit = write("unit.tif", ramp(1, np.float32))
    with pytest.raises(UserError, match=r"unit\.tif.*floating-point.*full_scale=N"):
        find_full_scale([deep, unit])
    for name, value in (("nan.tif", np.nan), ("infinite.tif", np.inf), ("negative.tif", -0.5)):
        values = ramp(1, np.float32)
        values[3, 3] = value
        with pytest.raises(UserError, match=rf"{name}: holds .*(no number|negative)"):
            read_image(write(name, values))
    huge = write("huge.tif", ramp(100_000, np.int32))
    with pytest.raises(UserError, match=r"huge\.tif: values up to 100000; expected at most 65535"):
        find_full_scale([huge])
    assert np.asarray(Reader(100_000.0).read(huge).image).max() == 255


def test_full_scale_is_found_from_deep_files_alone(tmp_path):
    flat = str(tmp_path / "flat.png")
    Image.fromarray(ramp(255, np.uint8)).save(flat)
    (tmp_path / "bad.png").write_bytes(b"no")
    assert find_full_scale([flat, str(tmp_path / "bad.png")]) is None


def test_a_reader_follows_the_record():
    assert Reader.of_record({}) == EVERY_DEPTH
    assert Reader.of_record({"full_scale": None}) == Reader(None, False)
    assert Reader.of_record({"full_scale": 1023.0}, 7) == Reader(1023.0, True, 7)
