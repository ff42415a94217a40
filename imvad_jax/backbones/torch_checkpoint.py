"""Opens PyTorch checkpoints (.pth, .pt) without PyTorch and without unpickling anything.

Two containers exist. Since PyTorch 1.6 a checkpoint is a zip archive: `<root>/data.pkl` and one
uncompressed record `<root>/data/<key>` a storage. Before, it was one stream: a magic number, a
version, facts on the machine, the pickle, the list of storage keys, then each storage as an int64
count and its numbers.
"""

import io
import math
import mmap
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from imvad_jax.backbones import torch_pickle
from imvad_jax.backbones.torch_pickle import Malformed, StorageRef, TensorRef
from imvad_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_NESTED_UNDER = ("state_dict", "model")


def open_checkpoint(path: Path, closing: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    """Returns a reader for each tensor of the state dict, which may lie under a known key.

    A reader returns the tensor as a (possibly strided) view in its stored type; nothing of a
    size that the file merely claims is allocated. The file is held open until `closing` closes.

    Raises:
      UserError: a refused global, no state dict, big-endian numbers.
      Malformed: a truncated or damaged file, or a tensor that exceeds its storage.
    """
    file = closing.enter_context(path.open("rb"))
    if file.read(2) == b"PK":
        content, storage = _open_zip(path, closing)
    else:
        content, storage = _open_legacy(path, file.fileno())
    # Tensors that share a storage usually follow each other: keep the last one read.
    storage = lru_cache(maxsize=1)(storage)
    tensors = _state_dict(content, path)
    return {name: partial(_read_tensor, name, ref, storage) for name, ref in tensors.items()}


def _state_dict(content: Any, path: Path) -> dict[str, TensorRef]:
    for key in _NESTED_UNDER:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    entries = content.items() if isinstance(content, dict) else ()
    tensors = {key: value for key, value in entries if isinstance(value, TensorRef)}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise UserError(
            f"{path}: it holds no state dict (tensors by name, at the top or under "
            f"{' or '.join(repr(key) for key in _NESTED_UNDER)}); {torch_pickle.REMEDY}"
        )
    return tensors


def _read_tensor(
    name: str, ref: TensorRef, storage: Callable[[StorageRef], memoryview]
) -> np.ndarray:
    dtype, numel = ref.storage.dtype, ref.storage.numel
    reach = sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    count = math.prod(ref.shape)
    if count and (ref.offset + reach >= numel or count > numel):
        raise Malformed(
            f"tensor '{name}' of shape {ref.shape} at offset {ref.offset} exceeds its storage of "
            f"{numel} numbers"
        )
    # numpy checks the view against the buffer once more
    return np.ndarray(
        ref.shape,
        dtype,
        buffer=storage(ref.storage),
        offset=ref.offset * dtype.itemsize if count else 0,
        strides=tuple(stride * dtype.itemsize for stride in ref.strides),
    )


def _open_zip(path: Path, closing: ExitStack) -> tuple[Any, Callable[[StorageRef], memoryview]]:
    archive = closing.enter_context(zipfile.ZipFile(path))
    roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Malformed(f"a zip archive with {len(roots)} records data.pkl is no checkpoint")
    root, limit = roots[0], path.stat().st_size
    if f"{root}byteorder" in archive.namelist():
        order = _record(archive, f"{root}byteorder", limit)
        if order != b"little":
            raise UserError(f"{path}: byte order {order!r}, expected b'little'; save it anew")
    content = torch_pickle.read(io.BytesIO(_record(archive, f"{root}data.pkl", limit)), str(path))

    def storage(ref: StorageRef) -> memoryview:
        data = _record(archive, f"{root}data/{ref.key}", limit)
        if len(data) < ref.numel * ref.dtype.itemsize:
            raise Malformed(f"storage '{ref.key}' has {len(data)} bytes for {ref.numel} numbers")
        return memoryview(data)

    return content, storage


def _record(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if name not in archive.NameToInfo:
        raise Malformed(f"record {name} is missing")
    info = archive.getinfo(name)
    # Stored records cannot be larger than the file; a compressed one could unfold without end.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise Malformed(f"record {name} is compressed, or larger than the file")
    return archive.read(info)


def _open_legacy(path: Path, fileno: int) -> tuple[Any, Callable[[StorageRef], memoryview]]:
    # A mapping, not the file: reads of a size that the file only claims end at its end. It goes
    # with its last view; closing it before would fail.
    stream = mmap.mmap(fileno, 0, access=mmap.ACCESS_READ)
    try:
        magic = torch_pickle.read(stream, str(path))
    except Malformed as error:
        raise Malformed("it is neither a zip archive nor a legacy checkpoint") from error
    if magic != _LEGACY_MAGIC:
        raise Malformed("it is neither a zip archive nor a legacy checkpoint")
    version = torch_pickle.read(stream, str(path))
    machine = torch_pickle.read(stream, str(path))
    if version != _LEGACY_VERSION or not isinstance(machine, dict):
        raise Malformed(f"legacy checkpoint version {version!r}, expected {_LEGACY_VERSION}")
    if machine.get("little_endian") is not True:
        raise UserError(f"{path}: it was not written on a little-endian machine; save it anew")
    storages: dict[str, StorageRef] = {}
    content = torch_pickle.read(stream, str(path), storages)
    keys = torch_pickle.read(stream, str(path))
    offsets = _legacy_offsets(stream, keys, storages)

    def storage(ref: StorageRef) -> memoryview:
        if ref.key not in offsets:
            raise Malformed(f"storage '{ref.key}' is missing")
        start = offsets[ref.key]
        return memoryview(stream)[start : start + ref.numel * ref.dtype.itemsize]

    return content, storage


def _legacy_offsets(
    stream: mmap.mmap, keys: Any, storages: Mapping[str, StorageRef]
) -> dict[str, int]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Malformed("its list of storages is no list of names")
    offsets, position = {}, stream.tell()
    for key in keys:
        if key not in storages:
            raise Malformed(f"storage '{key}' belongs to no tensor")
        ref = storages[key]
        numel = int.from_bytes(stream[position : position + 8], "little")
        offsets[key] = position + 8
        position = offsets[key] + ref.numel * ref.dtype.itemsize
        if numel != ref.numel or position > len(stream):
            raise Malformed(f"storage '{key}' is cut off or not of the {ref.numel} numbers told")
    return offsets
