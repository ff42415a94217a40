"""Reads the pickle inside a PyTorch checkpoint as data: opcodes are walked, nothing is executed.

A small stack machine builds dicts, lists, tuples, numbers and strings. The only globals it knows
are the few that a state dict needs, and each is answered by code here; any other is refused by
name. Tensors come out as `TensorRef`s: where they lie, not their values.

A pickle of a few bytes can hold lists that double 40 times, a tuple a million deep or numbers that
all hash alike. So the work is counted, only strings are hashed, and no object is written into a
message: strings are cut, the rest is left out.
"""

import mmap
import pickletools
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

import jax.numpy as jnp
import numpy as np

from imvad_jax import collector
from imvad_jax.backbones.lazy_tensor import Malformed
from imvad_jax.backbones.wording import shown
from imvad_jax.errors import UserError

# Opcodes and sizes of shapes of one pickle. A network of 1,500 tensors with its average and two
# moments of an optimiser needs some 200,000.
MOST_STEPS = 400_000
MOST_DIMENSIONS = 64  # numpy's own limit
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
# An optimiser's dicts have numbers as keys. Such entries name no tensor and are dropped, for a
# number is hashed to its remainder by 2**61 - 1: thousands of them can be made to collide.
_DROPPED_KEYS = (int, float, bytes, type(None))


# What pickletools and the machine raise for bytes that make no sense; Warning: `python -W error`.
_SENSELESS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    Warning,
)


def read(
    stream: BinaryIO | mmap.mmap,
    what: str,
    storages: dict[str, StorageRef] | None = None,
    most_steps: int = MOST_STEPS,
) -> Any:
    """Returns the object pickled at the position of `stream`, which is left just behind it.

    Args:
      stream: a seekable stream.
      what: the file's name, for errors.
      storages: the storages met on the way are entered here.
      most_steps: a pickle that takes more opcodes is refused.

    Raises:
      UserError: a global or an opcode that no state dict needs; it is named. Too many steps.
      Malformed: the bytes are not a whole pickle.
    """
    machine = _Machine(what, {} if storages is None else storages, most_steps)
    start, position = stream.tell(), None
    try:
        with collector.paused():  # the objects of a pickle only grow in number
            for opcode, argument, at in pickletools.genops(cast("IO[bytes]", stream)):
                position = at
                machine.step(opcode.name, argument)
        return machine.stack.pop()
    except UserError:
        raise
    except _SENSELESS as error:
        # The error's own text may hold any object of the file, at any length.
        where = "its first byte" if position is None else f"byte {position - start}"
        raise Malformed(f"its pickle is not well formed, at or after {where}") from error


class _Machine:
    def __init__(self, what: str, storages: dict[str, StorageRef], most_steps: int):
        self.what = what
        self.storages = storages
        self.most_steps = self.steps_left = most_steps
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        if self.steps_left < 0:
            raise UserError(
                f"{self.what}: its pickle takes more than {self.most_steps:,} steps, expected "
                f"those of a state dict; {REMEDY}"
            )

    def step(self, name: str, argument: Any) -> None:
        self.spend(1)
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
            if not _is_size(argument) or argument > MOST_STEPS:
                raise Malformed("its pickle numbers more objects than a state dict has")
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
                raise Malformed(f"storage '{shown(ref.key)}' is described in two ways")
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
            if isinstance(key, str):
                target[key] = value
            elif not isinstance(key, _DROPPED_KEYS):
                raise Malformed(f"a dict key in its pickle is a {type(key).__name__}")

    def append(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise Malformed("its pickle appends to something that is no list")
        self.stack[-1].extend(items)

    def find(self, module: Any, name: Any) -> _Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Malformed("a global in its pickle is not named by strings")
        is_storage = module in ("torch", "torch.cuda") and name in STORAGES
        if not is_storage and (module, name) not in _CALLABLES:
            raise UserError(
                f"{self.what}: it asks for the global '{shown(f'{module}.{name}')}', which is "
                f"refused: only tensors are read from a checkpoint, no code is run; {REMEDY}"
            )
        return _Global(module, name)

    def call(self, function: Any, arguments: Any) -> Any:
        called = (function.module, function.name) if isinstance(function, _Global) else None
        if called not in _CALLABLES or not isinstance(arguments, tuple):
            raise Malformed("its pickle calls something that is no function")
        if called == _ORDERED_DICT and not arguments:
            return {}
        if called == _TENSOR and len(arguments) in (6, 7):
            return self.tensor(*arguments[:4])
        if called == _PARAMETER and len(arguments) == 3 and isinstance(arguments[0], TensorRef):
            return arguments[0]
        raise Malformed(f"its pickle calls {function.name} with unexpected arguments")

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> TensorRef:
        if not isinstance(storage, StorageRef) or not _is_size(offset):
            raise Malformed("a tensor in its pickle has no storage or no offset")
        for sizes in (shape, strides):
            if not isinstance(sizes, tuple):
                raise Malformed("a tensor in its pickle has no proper shape and strides")
            if len(sizes) > MOST_DIMENSIONS:
                raise Malformed(f"a tensor in its pickle has over {MOST_DIMENSIONS} dimensions")
            if not all(_is_size(size) for size in sizes):
                raise Malformed("a tensor in its pickle has no proper shape and strides")
        if len(shape) != len(strides):
            raise Malformed("a tensor in its pickle has more sizes than strides, or fewer")
        self.spend(len(shape))  # one long tuple may serve thousands of tensors
        return TensorRef(storage, offset, shape, strides)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


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
