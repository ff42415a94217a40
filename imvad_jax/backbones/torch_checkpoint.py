"""Opens PyTorch checkpoints without PyTorch and without unpickling anything.

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
from imvad_jax.backbones.lazy_tensor import Contents, LazyTensor, Malformed
from imvad_jax.backbones.torch_pickle import StorageRef, TensorRef
from imvad_jax.backbones.wording import shape_text, shown
from imvad_jax.backbones.zip_files import open_zip
from imvad_jax.errors import UserError, readable

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
# The magic number, the version and the facts on the machine are a few opcodes each; the list of
# storages is two for each.
_LEGACY_HEAD_STEPS, _LEGACY_KEYS_STEPS = 1000, 50_000
_PICKLE_BYTES = 1 << 26
# In this order: where a file has several, the weights as trained come before their average.
_NESTED_UNDER = ("state_dict", "model", "model_state_dict", "state_dict_ema")


def open_checkpoint(path: Path, closing: ExitStack) -> Contents:
    """Returns the tensors of the state dict, which may lie under a known key; a note says which.

    A tensor is read as a (possibly strided) view in its stored type; nothing of a size that the
    file merely claims is allocated. The file is held open until `closing` closes.

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
    tensors, notes = _state_dict(content, path)
    describe = {name: partial(_describe, ref, storage) for name, ref in tensors.items()}
    return Contents(describe, notes)


def _state_dict(content: Any, path: Path) -> tuple[dict[str, TensorRef], tuple[str, ...]]:
    top = content if isinstance(content, dict) else {}
    nested = {key: _tensors(top[key]) for key in _NESTED_UNDER if isinstance(top.get(key), dict)}
    nested = {key: tensors for key, tensors in nested.items() if tensors}
    if nested:
        chosen, *others = nested
        besides = "".join(f", not from '{key}'" for key in others)
        return nested[chosen], (f"the state dict is taken from '{chosen}'{besides}",)
    if tensors := _tensors(top):
        return tensors, ()
    raise UserError(
        f"{readable(path)}: it holds no state dict (tensors by name, at the top or under "
        f"{' or '.join(repr(key) for key in _NESTED_UNDER)}); {torch_pickle.REMEDY}"
    )


def _tensors(content: dict[str, Any]) -> dict[str, TensorRef]:
    return {key: value for key, value in content.items() if isinstance(value, TensorRef)}


def _describe(ref: TensorRef, storage: Callable[[StorageRef], memoryview]) -> LazyTensor:
    return LazyTensor(ref.shape, ref.storage.dtype, partial(_read_tensor, ref, storage))


def _read_tensor(ref: TensorRef, storage: Callable[[StorageRef], memoryview]) -> np.ndarray:
    dtype, numel = ref.storage.dtype, ref.storage.numel
    reach = sum((size - 1) * stride for size, stride in zip(ref.shape, ref.strides, strict=True))
    count = math.prod(ref.shape)
    if count and (ref.offset + reach >= numel or count > numel):
        raise Malformed(
            f"its shape {shape_text(ref.shape)} at offset {ref.offset} exceeds its storage of "
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
    archive = open_zip(path, closing)
    roots = [name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Malformed(f"a zip archive with {len(roots)} records data.pkl is no checkpoint")
    root, limit = roots[0], path.stat().st_size
    if f"{root}byteorder" in archive.NameToInfo:
        order = _record(archive, f"{root}byteorder", min(limit, 16))
        if order != b"little":
            found = "b'big'" if order == b"big" else "unknown"
            raise UserError(
                f"{readable(path)}: byte order {found}, expected b'little'; save it anew"
            )
    pickled = _record(archive, f"{root}data.pkl", min(limit, _PICKLE_BYTES))
    content = torch_pickle.read(io.BytesIO(pickled), readable(path))

    def storage(ref: StorageRef) -> memoryview:
        data = _record(archive, f"{root}data/{ref.key}", limit)
        if len(data) < ref.numel * ref.dtype.itemsize:
            raise Malformed(
                f"storage '{shown(ref.key)}' has {len(data)} bytes for {ref.numel} numbers"
            )
        return memoryview(data)

    return content, storage


def _record(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    if name not in archive.NameToInfo:
        raise Malformed(f"record {shown(name)} is missing")
    info = archive.getinfo(name)
    # Stored records cannot be larger than the file; a compressed one could unfold without end.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise Malformed(f"record {shown(name)} is compressed, or larger than {limit} bytes")
    return archive.read(info)


def _open_legacy(path: Path, fileno: int) -> tuple[Any, Callable[[StorageRef], memoryview]]:
    # A mapping, not the file: reads of a size that the file only claims end at its end. It goes
    # with its last view; closing it before would fail.
    stream = mmap.mmap(fileno, 0, access=mmap.ACCESS_READ)
    what = readable(path)
    try:
        magic = torch_pickle.read(stream, what, most_steps=_LEGACY_HEAD_STEPS)
    except Malformed as error:
        raise Malformed("it is neither a zip archive nor a legacy checkpoint") from error
    if magic != _LEGACY_MAGIC:
        raise Malformed("it is neither a zip archive nor a legacy checkpoint")
    version = torch_pickle.read(stream, what, most_steps=_LEGACY_HEAD_STEPS)
    machine = torch_pickle.read(stream, what, most_steps=_LEGACY_HEAD_STEPS)
    if version != _LEGACY_VERSION or not isinstance(machine, dict):
        # Any object may stand in its place: only a small number is shown.
        found = version if isinstance(version, int) and 0 <= version < 2**63 else "unknown"
        raise Malformed(f"legacy checkpoint version {found}, expected {_LEGACY_VERSION}")
    if machine.get("little_endian") is not True:
        raise UserError(f"{what}: it was not written on a little-endian machine; save it anew")
    storages: dict[str, StorageRef] = {}
    content = torch_pickle.read(stream, what, storages)
    keys = torch_pickle.read(stream, what, most_steps=_LEGACY_KEYS_STEPS)
    offsets = _legacy_offsets(stream, keys, storages)

    def storage(ref: StorageRef) -> memoryview:
        if ref.key not in offsets:
            raise Malformed(f"storage '{shown(ref.key)}' is missing")
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
            raise Malformed(f"storage '{shown(key)}' belongs to no tensor")
        ref = storages[key]
        numel = int.from_bytes(stream[position : position + 8], "little")
        offsets[key] = position + 8
        position = offsets[key] + ref.numel * ref.dtype.itemsize
        if numel != ref.numel or position > len(stream):
            raise Malformed(
                f"storage '{shown(key)}' is cut off or not of the {ref.numel} numbers told"
            )
    return offsets
