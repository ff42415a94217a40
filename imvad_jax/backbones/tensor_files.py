"""Opens a file of named tensors as a lazy mapping, whatever its format; nothing is unpickled."""

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from imvad_jax.backbones.torch_checkpoint import open_checkpoint
from imvad_jax.backbones.torch_pickle import Malformed
from imvad_jax.errors import UserError

# What the readers raise where the bytes are not what the format says.
_DAMAGED = (
    Malformed,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,  # safetensors: a number type that its version cannot give to numpy
    KeyError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    NotImplementedError,  # zip: a compression unknown here
    RuntimeError,  # zip: an encrypted record
)


class TensorFile(Mapping):
    """Arrays by name; each is read when it is looked up. A failed read is a UserError."""

    def __init__(self, path: Path, readers: Mapping[str, Callable[[], np.ndarray]]):
        self._path, self._readers = path, readers

    def __getitem__(self, name: str) -> np.ndarray:
        reader = self._readers[name]
        try:
            return reader()
        except _DAMAGED as error:
            raise _damaged(self._path, f"tensor '{name}': {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _open_safetensors(path: Path, closing: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    file = closing.enter_context(safe_open(path, "np"))
    return {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118


def _open_npz(path: Path, closing: ExitStack) -> dict[str, Callable[[], np.ndarray]]:
    # np.load would take other files too, by their first bytes
    if not zipfile.is_zipfile(path):
        raise Malformed("it is no .npz archive")
    archive = closing.enter_context(np.load(path, allow_pickle=False))
    return {name: partial(archive.__getitem__, name) for name in archive.files}


_OPENERS = {
    ".safetensors": _open_safetensors,
    ".npz": _open_npz,
    ".pth": open_checkpoint,
    ".pt": open_checkpoint,
}
SUFFIXES = tuple(_OPENERS)


def check_suffix(name: str) -> str:
    """Returns the suffix of a file name; raises UserError if it is not among SUFFIXES."""
    suffix = Path(name).suffix.lower()
    if suffix not in _OPENERS:
        raise UserError(
            f"{name}: unknown suffix '{suffix}' for a file of weights; readable are "
            f"{', '.join(SUFFIXES)}"
        )
    return suffix


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Opens `path` by its suffix. A leading "module." (data parallel) is taken off every name.

    Raises UserError naming the file: unknown suffix, or damaged (here, or when a tensor is read).
    """
    opener = _OPENERS[check_suffix(str(path))]
    with ExitStack() as closing:
        try:
            readers = opener(path, closing)
        except _DAMAGED as error:
            raise _damaged(path, str(error)) from error
        if not readers:
            raise UserError(f"{path}: it holds no tensors; take a file of pretrained weights")
        yield TensorFile(path, {name.removeprefix("module."): r for name, r in readers.items()})


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: cannot be read as {path.suffix}: {reason}; fetch the file again")
