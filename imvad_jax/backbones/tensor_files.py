"""Opens a file of named tensors as a lazy mapping, whatever its format; nothing is unpickled."""

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from imvad_jax.backbones.lazy_tensor import Contents, LazyTensor, Malformed
from imvad_jax.backbones.npz_file import open_npz
from imvad_jax.backbones.safetensors_file import open_safetensors
from imvad_jax.backbones.torch_checkpoint import open_checkpoint
from imvad_jax.backbones.wording import shown
from imvad_jax.errors import UserError, readable

T = TypeVar("T")

# What the readers raise where the bytes are not what the format says.
_DAMAGED = (
    Malformed,
    SafetensorError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    TypeError,  # safetensors: a number type that its version cannot give to numpy
    AttributeError,  # the same, where numpy itself has no such type
    LookupError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    NotImplementedError,  # zip: a compression unknown here
    RuntimeError,  # zip: an encrypted record
)


class TensorFile(Mapping):
    """Tensors by name, as `LazyTensor`s; each is read when it becomes an array.

    A failed look-up or read is a UserError naming the file and the tensor. `notes` say what the
    user is to know of the file.
    """

    def __init__(self, path: Path, contents: Contents):
        self._path, self._describe, self.notes = path, contents.describe, contents.notes

    def __getitem__(self, name: str) -> LazyTensor:
        describe = self._describe[name]
        tensor = self._guarded(name, describe)
        return replace(tensor, read=partial(self._guarded, name, tensor.read))

    def __contains__(self, name: object) -> bool:
        return name in self._describe

    def __iter__(self) -> Iterator[str]:
        return iter(self._describe)

    def __len__(self) -> int:
        return len(self._describe)

    def _guarded(self, name: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except UserError:
            raise
        except _DAMAGED as error:
            raise _damaged(self._path, error, f"tensor '{shown(name)}': ") from error


_OPENERS = {
    ".safetensors": open_safetensors,
    ".npz": open_npz,
    ".pth": open_checkpoint,
    ".pt": open_checkpoint,
    ".pth.tar": open_checkpoint,
    ".bin": open_checkpoint,
    ".ckpt": open_checkpoint,
}
SUFFIXES = tuple(_OPENERS)


def check_suffix(name: str) -> str:
    """Returns the suffix of a file name; raises UserError if it is not among SUFFIXES."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    raise UserError(
        f"{readable(name)}: unknown suffix '{readable(Path(name).suffix)}' for a file of weights; "
        f"readable are {', '.join(SUFFIXES)}"
    )


def check_file(path: Path, remedy: str = "check its name") -> None:
    """Raises UserError unless `path` is a regular file: a fifo or a device may never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise UserError(f"{readable(path)}: no such file of weights; {remedy}") from error
        reason = getattr(error, "strerror", None) or "no valid name"
        raise UserError(f"{readable(path)}: cannot be read ({reason}); {remedy}") from error
    if stat.S_ISDIR(mode):
        raise UserError(f"{readable(path)}: is a directory; name the file of weights inside it")
    if not stat.S_ISREG(mode):
        kind = "a fifo" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise UserError(f"{readable(path)}: is {kind}, expected a regular file of weights")


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Opens `path` by its suffix.

    Raises UserError naming the file: unknown suffix, no regular file, or damaged (here, or when
    a tensor is looked up or read).
    """
    opener = _OPENERS[check_suffix(os.fspath(path))]
    check_file(path)
    with ExitStack() as closing:
        try:
            contents = opener(path, closing)
        except UserError:
            raise
        except _DAMAGED as error:
            raise _damaged(path, error) from error
        if not contents.describe:
            raise UserError(
                f"{readable(path)}: it holds no tensors; take a file of pretrained weights"
            )
        yield TensorFile(path, contents)


def _damaged(path: Path, error: Exception, where: str = "") -> UserError:
    name = readable(path)
    if isinstance(error, OSError) and error.strerror:
        return UserError(f"{name}: cannot be read ({where}{error.strerror}); check the file")
    if isinstance(error, MemoryError):
        reason = "it asks for more memory than there is"
    else:
        reason = shown(str(error), 300)
    suffix = check_suffix(path.name)
    return UserError(f"{name}: cannot be read as {suffix}: {where}{reason}; fetch the file again")
