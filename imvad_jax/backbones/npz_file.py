"""Reads the arrays of a .npz archive, each header before its values; nothing is unpickled.

`numpy.load` decompresses as much as a header claims. Here the shape is known first, so an array of
an unexpected shape is never decompressed.
"""

import math
import re
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np

from imvad_jax.backbones.lazy_tensor import Contents, LazyTensor, Malformed
from imvad_jax.backbones.wording import shown
from imvad_jax.backbones.zip_files import open_zip

_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 10_000  # numpy's own limit
_MOST_DIMENSIONS = 64
# numpy writes the keys in this order; a number in a shape is one below 10**18.
_HEADER = re.compile(
    r"\{\s*'descr'\s*:\s*'(?P<type>[<>|=]?[a-zA-Z]\d{0,4})'\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>(?:\d{1,18}\s*,\s*)*(?:\d{1,18})?)\s*\)\s*,?\s*\}\s*"
)


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    bytes: int  # how long it is itself

    @property
    def size(self) -> int:
        """The bytes of the array behind it."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_npz(path: Path, closing: ExitStack) -> Contents:
    """Returns the arrays of the archive, which is open until `closing` closes.

    Raises:
      Malformed: the archive, or the record of an array when it is described, is not well formed.
      zipfile.BadZipFile: it is no archive.
    """
    archive = open_zip(path, closing)
    records = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    return Contents({name: partial(_describe, archive, info) for name, info in records.items()})


def _describe(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> LazyTensor:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Other kinds of compression decompress a whole block, however little is requested.
        raise Malformed("it is compressed in a way that numpy does not use")
    with archive.open(info) as record:
        header = _header(record)
    size = header.bytes + header.size
    if info.file_size != size:
        raise Malformed(f"its record has {info.file_size} bytes, its header tells of {size}")
    return LazyTensor(header.shape, header.dtype, partial(_read, archive, info, header))


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: _Header) -> np.ndarray:
    with archive.open(info) as record:
        record.read(header.bytes)
        content = record.read(header.size)
        record.read(1)  # at the end of the record its checksum is compared
    if len(content) != header.size:
        raise Malformed(f"its record ends after {len(content)} of {header.size} bytes")
    return np.frombuffer(content, header.dtype).reshape(header.shape, order=header.order)


def _header(record: IO[bytes]) -> _Header:
    start = record.read(8)
    if start[:6] != _MAGIC or start[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise Malformed("its record is no array of numpy's format 1.0 or 2.0")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(record.read(width), "little")
    if length > _HEADER_BYTES:
        raise Malformed(f"its header has {length} bytes, expected at most {_HEADER_BYTES}")
    text = record.read(length).decode("latin1")
    match = _HEADER.fullmatch(text)
    if match is None:
        raise Malformed(
            f"its header is not that of an array of numbers (Python objects and records are not "
            f"read): {shown(text)}"
        )
    shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
    if len(shape) > _MOST_DIMENSIONS:
        raise Malformed(f"it has {len(shape)} dimensions, expected at most {_MOST_DIMENSIONS}")
    dtype = np.dtype(match["type"])
    if dtype.hasobject:
        raise Malformed("it holds Python objects, which are not read")
    order = "F" if match["fortran"] == "True" else "C"
    return _Header(shape, dtype, order, 8 + width + length)
