"""PyTorch checkpoints assembled by hand: names of globals and storages are written as such."""

import io
import pickle
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
KINDS = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "u1": "Byte", "b1": "Bool"}


@dataclass(frozen=True)
class Global:
    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Any
    arguments: tuple


@dataclass(frozen=True)
class Storage:
    key: str
    data: bytes
    numel: int
    kind: str


class Pickler(pickle._Pickler):
    """The pure-Python pickler, taught to write a name, a call and a storage."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, protocol, legacy=False):
        self.stream, self.storages, self.legacy = io.BytesIO(), {}, legacy
        super().__init__(self.stream, protocol)

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        kind = Global("torch", f"{obj.kind}Storage")
        pid = ("storage", kind, obj.key, "cpu", obj.numel)
        return (*pid, None) if self.legacy else pid

    def save_global_by_name(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def save_call(self, obj):
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    dispatch[Global] = save_global_by_name
    dispatch[Call] = save_call


def storage(key, array, numel=None, kind=None):
    array = np.ascontiguousarray(array)
    kind = kind or KINDS[array.dtype.str[1:]]
    return Storage(key, array.tobytes(), array.size if numel is None else numel, kind)


def view(stored, offset, shape, strides):
    arguments = (
        stored,
        offset,
        shape,
        strides,
        False,
        Call(Global("collections", "OrderedDict"), ()),
    )
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def tensor(key, array):
    array = np.asarray(array)
    strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
    return view(storage(key, array), 0, array.shape, strides[: array.ndim])


def pickled(obj, protocol=2, legacy=False):
    pickler = Pickler(protocol, legacy)
    pickler.dump(obj)
    return pickler.stream.getvalue(), pickler.storages


def write_zip(path, obj, protocol=2, compression=zipfile.ZIP_STORED, order=b"little", drop=()):
    data, storages = pickled(obj, protocol)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", order)
        for key, stored in storages.items():
            if key not in drop:
                archive.writestr(f"archive/data/{key}", stored.data)
    return path


def write_legacy(path, obj, protocol=2, little=True, version=VERSION):
    data, storages = pickled(obj, protocol, legacy=True)
    facts = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    head = [pickled(part, protocol)[0] for part in (MAGIC, version, facts)]
    keys = sorted(storages)
    content = b"".join(head) + data + pickled(keys, protocol)[0]
    for key in keys:
        content += storages[key].numel.to_bytes(8, "little") + storages[key].data
    path.write_bytes(content)
    return path
