"""Reads the pickle inside a PyTorch checkpoint as data: opcodes are walked, nothing is executed.

A small stack machine builds dicts, lists, tuples, numbers and strings. The only globals it knows
are the few that a state dict needs, and each is answered by code here; any other is refused by
name. Tensors come out as `TensorRef`s: where they lie, not their values.
"""

import pickletools
from dataclasses import dataclass
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from imvad_jax.errors import UserError

REMEDY = "save the state dict alone (tensors by name), best as .safetensors"

STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_ORDERED_DICT = ("collections", "OrderedDict")
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_CALLABLES = (_ORDERED_DICT, _TENSOR, _PARAMETER)


class Malformed(Exception):
    """The bytes do not follow the format; readers turn it into a UserError naming the file."""


@dataclass(frozen=True)
class StorageRef:
    """A run of `numel` numbers stored elsewhere in the file under `key`."""

    key: str
    dtype: np.dtype
    numel: int


@dataclass(frozen=True)
class TensorRef:
    """A strided view of a storage; offset and strides count elements."""

    storage: StorageRef
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_LITERALS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    )
)
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
# Containers are no keys here: hashing a deeply nested one overflows the C stack.
_KEY_TYPES = (str, int, float, bytes, type(None))


def read(stream: BinaryIO, what: str, storages: dict[str, StorageRef] | None = None) -> Any:
    """Returns the object pickled at the position of `stream`, which is left just behind it.

    The storages met on the way are entered in `storages`. Raises UserError naming a global or an
    opcode that no state dict needs, and Malformed where the bytes are not a whole pickle. `what`
    names the file.
    """
    machine = _Machine(what, {} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        return machine.stack.pop()
    except UserError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Malformed(f"its pickle is not well formed ({error})") from error


class _Machine:
    def __init__(self, what: str, storages: dict[str, StorageRef]):
        self.what = what
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _SHORT_TUPLES:
            size = _SHORT_TUPLES[name]
            if len(stack) < size:
                raise Malformed("its pickle ends a tuple that it did not begin")
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self.to_mark()))
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            self.set_items([key, value])
        elif name == "SETITEMS":
            self.set_items(self.to_mark())
        elif name == "APPEND":
            value = stack.pop()
            self.append([value])
        elif name == "APPENDS":
            self.append(self.to_mark())
        elif name == "GLOBAL":
            stack.append(self.find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self.find(module, attribute))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif name == "BUILD":
            # An OrderedDict's attributes (PyTorch's _metadata) are dropped.
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise Malformed("its pickle sets attributes of something that is no dict")
        elif name == "BINPERSID":
            ref = _storage(stack.pop())
            if self.storages.setdefault(ref.key, ref) != ref:
                raise Malformed(f"storage '{ref.key}' is described in two ways")
            stack.append(ref)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise UserError(f"{self.what}: pickle opcode {name} is not read; {REMEDY}")

    def to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Malformed("its pickle sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, _KEY_TYPES):
                raise Malformed(f"a dict key in its pickle is a {type(key).__name__}")
            target[key] = value

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Malformed("its pickle appends to something that is no list")
        self.stack[-1].extend(items)

    def find(self, module: Any, name: Any) -> _Global:
        is_storage = module in ("torch", "torch.cuda") and name in STORAGES
        if not is_storage and (module, name) not in _CALLABLES:
            raise UserError(
                f"{self.what}: it asks for the global '{module}.{name}', which is refused: only "
                f"tensors are read from a checkpoint, no code is run; {REMEDY}"
            )
        return _Global(module, name)

    def call(self, function: Any, arguments: Any) -> Any:
        called = (function.module, function.name) if isinstance(function, _Global) else None
        if called not in _CALLABLES or not isinstance(arguments, tuple):
            raise Malformed("its pickle calls something that is no function")
        if called == _ORDERED_DICT and not arguments:
            return {}
        if called == _TENSOR and len(arguments) in (6, 7):
            return _tensor(*arguments[:4])
        if called == _PARAMETER and len(arguments) == 3 and isinstance(arguments[0], TensorRef):
            return arguments[0]
        raise Malformed(f"its pickle calls {function.name} with unexpected arguments")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _storage(pid: Any) -> StorageRef:
    # ("storage", type, key, device, numel), and in the legacy format a sixth, the view
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise Malformed("a storage in its pickle is not described as one")
    if len(pid) == 6 and pid[5] is not None:
        raise Malformed("a storage is a view of another, as PyTorch before 0.4 wrote them")
    kind, key, numel = pid[1], pid[2], pid[4]
    if not isinstance(kind, _Global) or kind.name not in STORAGES:
        raise Malformed("a storage in its pickle is of no known type")
    if not isinstance(key, str) or not _is_size(numel):
        raise Malformed("a storage in its pickle has no key or no size")
    return StorageRef(key, STORAGES[kind.name], numel)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRef:
    if not isinstance(storage, StorageRef) or not _is_size(offset):
        raise Malformed("a tensor in its pickle has no storage or no offset")
    for sizes in (shape, strides):
        if not isinstance(sizes, tuple) or not all(_is_size(size) for size in sizes):
            raise Malformed("a tensor in its pickle has no proper shape and strides")
    if len(shape) != len(strides):
        raise Malformed("a tensor in its pickle has more sizes than strides, or fewer")
    return TensorRef(storage, offset, shape, strides)
