"""Files made to break a reader: one line that names the file, in a second and bounded memory.

All are read by one child process, for what breaks a reader may break the interpreter.
"""

import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.backbones.checkpoints import MAGIC, VERSION, pickled, write_legacy
from tests.golden.files import shared_root

ROOT = Path(__file__).parents[2]
MERSENNE = 2**61 - 1  # Python hashes an integer to its remainder by this


def checkpoint(payload, **records):
    """A zip checkpoint around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def legacy(version):
    return pickled(MAGIC)[0] + version + pickled({"little_endian": True})[0]


def text(content):
    return b"X" + struct.pack("<I", len(content)) + content


def long(number):
    content = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8b" + struct.pack("<i", len(content)) + content


def doubled(times):
    """A list of two lists of two lists ..., which would fill memory if it were written out."""
    step = b"".join(b"](h%ch%ce" % (i, i) + b"q%c" % (i + 1) for i in range(times))
    return b"]q\x00" + step


def rebuilt(shape, strides=None, offset=b"K\x00", size=b"K\x01"):
    """A dict of one tensor, of pickled sizes."""
    stored = b"((" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(b"0") + text(b"cpu")
    return (
        b"\x80\x02}" + text(b"bn1.running_mean") + b"ctorch._utils\n_rebuild_tensor_v2\n"
        + stored + size + b"tQ" + offset + shape + (strides or shape) + b"\x89}tRs."
    )  # fmt: skip


def npy(descr="'<f4'", shape="(64,)", content=bytes(256)):
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + content


def npz(record, name="bn1.running_mean.npy", compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(name, record)
    return stream.getvalue()


def safetensors(dtype="F32", shape=(64,), content=bytes(256), **more):
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(content)]}
    head = json.dumps({"bn1.running_mean": entry} | more).encode()
    return struct.pack("<Q", len(head)) + head + content


def many_entries(count):
    """A zip archive of entries alone: they all point to the same empty record."""
    name = b"a"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, *[0] * 6)
    table = (entry + name) * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(table), 31, 0)
    return b"PK\3\4" + bytes(26) + name + table + end


COLLIDING = b"".join(long(MERSENNE * i) + b"N" for i in range(1, 30_001))
TENSOR = rebuilt(b"(" + long(2**8000) + b"q\x05" + b"h\x05" * 999 + b"tq\x06")
FILES = {
    "nested_name.pth": (
        lambda: checkpoint(b"\x80\x04\x8c\x05torch)" + b"\x85" * 300_000 + b"\x93."),
        "not named by strings",
    ),
    "deep_name.pth": (
        lambda: checkpoint(b"\x80\x04\x8c\x05torch)" + b"\x85" * 1_000_000 + b"\x93."),
        "more than 400,000 steps",
    ),
    "doubling_global.pth": (
        lambda: checkpoint(b"\x80\x04" + doubled(40) + b"\x8c\x01a\x93."),
        "not named by strings",
    ),
    "doubling_version.pth": (
        lambda: legacy(b"\x80\x02" + doubled(40) + b"."), f"unknown, expected {VERSION}",
    ),
    "doubling_key.pth": (
        lambda: checkpoint(b"\x80\x02" + doubled(40) + b"}h\x28Ns."), "key in its pickle is a list",
    ),
    "nested_key.pth": (
        lambda: checkpoint(b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."),
        "key in its pickle is a tuple",
    ),
    "colliding_keys.pth": (
        lambda: checkpoint(b"\x80\x02}(" + COLLIDING + b"u."), "holds no state dict",
    ),
    "colliding_memo.pth": (
        lambda: checkpoint(
            b"\x80\x02N" + b"".join(b"p%d\n" % (MERSENNE * i) for i in range(1, 30_001)) + b"."
        ),
        "numbers more objects",
    ),
    "huge_sizes.pth": (lambda: checkpoint(TENSOR, **{"data/0": bytes(4)}), "over 64 dimensions"),
    "huge_size.pth": (lambda: checkpoint(rebuilt(long(2**63) + b"\x85")), "no proper shape"),
    "huge_offset.pth": (
        lambda: checkpoint(rebuilt(b"K\x01\x85", offset=long(2**80_000))), "no offset",
    ),
    "huge_storage.pth": (
        lambda: checkpoint(rebuilt(b"K\x40\x85", b"K\x01\x85", size=long(2**62))), "is missing",
    ),
    "long_name.pth": (
        lambda: checkpoint(b"\x80\x02c" + b"\x1b[2J" * 10**6 + b"\nb\n."), "the global '.x1b.2J",
    ),
    "long_number.pth": (
        lambda: checkpoint(b"\x80\x02I" + b"x" * 10**6 + b"\n."), "not well formed",
    ),
    "many_entries.pth": (lambda: many_entries(500_000), "table of contents"),
    "many_entries.npz": (lambda: many_entries(500_000), "table of contents"),
    "bomb.npz": (
        lambda: npz(npy(shape="(150000000,)", content=bytes(6 * 10**8)), compression=8),
        r"has shape \(150000000,\), expected \(64,\)",
    ),
    "bzip.npz": (lambda: npz(npy(), compression=zipfile.ZIP_BZIP2), "compressed in a way"),
    "claimed.npz": (lambda: npz(npy(shape="(64, 10000000000)")), "its header tells of"),
    "nested_header.npz": (lambda: npz(npy(descr="(" * 3000)), "its header is not"),
    "dimensions.npz": (lambda: npz(npy(shape=f"({'1,' * 65})", content=bytes(4))), "65 dimensions"),
    "raw_record.npz": (lambda: npz(b"12345", name="bn1.running_mean"), "no array of numpy"),
    "objects.npz": (lambda: npz(npy(descr="'|O'")), "Python objects"),
    "text.npz": (lambda: npz(npy(descr="'<U1'")), "is <U1, expected floating point"),
    "F8.safetensors": (lambda: safetensors("F8_E4M3", (256,)), "of type F8_E4M3, expected one of"),
    "F4.safetensors": (lambda: safetensors("F4", (512,)), "of type F4, expected one of"),
    "dimensions.safetensors": (lambda: safetensors(shape=[64] + [1] * 10**5), "100001 dimensions"),
    "long_header.safetensors": (
        lambda: safetensors(__metadata__={"a": " " * 5_000_000}), "header has 5,000,",
    ),
    "claimed.safetensors": (lambda: struct.pack("<Q", 2**40) + b"{}", "header has 1,099"),
}  # fmt: skip
NO_FILES = {
    "fifo.pth": (os.mkfifo, "is a fifo"),
    "device.npz": (lambda path: path.symlink_to("/dev/zero"), "is a device"),
    "null.safetensors": (lambda path: path.symlink_to("/dev/null"), "is a device"),
    "directory.ckpt": (Path.mkdir, "is a directory"),
    "broken_link.bin": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "loop.pt": (lambda path: path.symlink_to(path), "cannot be read"),
}
HOSTILE = shared_root() / "cases" / "hostile"
SHARED = sorted(HOSTILE.glob("*.*")) if HOSTILE.is_dir() else []
SHARED = [path for path in SHARED if path.suffix in {".pth", ".npz", ".safetensors"}]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{name: (message or "loaded", processor's seconds, path)} of all files, read by one child."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the child's memory is bounded by what /proc tells (Linux)")
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content())
    for name, (make, _) in NO_FILES.items():
        make(folder / name)
    # one file more, read first: first uses cost time
    write_legacy(folder / "first.pth", {})
    paths = [folder / "first.pth", *(folder / name for name in (*FILES, *NO_FILES)), *SHARED]
    child = subprocess.run(
        [sys.executable, "-m", "tests.backbones.read_hostile"],
        input="\n".join(map(str, paths)), capture_output=True, text=True, timeout=240, cwd=ROOT,
    )  # fmt: skip
    found = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"after {len(found)} of {len(paths)}: {child.stderr[-2000:]}"
    return {Path(path).name if Path(path) not in SHARED else path: (message, seconds, path)
            for path, message, seconds in found}  # fmt: skip


def check(outcome):
    message, seconds, path = outcome
    assert path in message and "\n" not in message
    assert message.isprintable() and len(message) < 1500
    assert seconds < 1, message
    return message


@pytest.mark.parametrize("name", [*FILES, *NO_FILES])
def test_refused_in_a_second_by_one_line(name, outcomes):
    expected = (FILES | NO_FILES)[name][1]
    assert re.search(expected, check(outcomes[name])), outcomes[name]


@pytest.mark.skipif(not SHARED, reason=f"no hostile files at {HOSTILE} (set IMVAD_SHARED)")
@pytest.mark.parametrize("path", SHARED, ids=lambda path: path.name)
def test_shared_hostile_files(path, outcomes):
    check(outcomes[str(path)])
