"""Reads arrays of `.npz` files such that any damage is detected."""

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Of a file of which any byte may be another.
DAMAGE = (
    OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, struct.error,
    NotImplementedError, RuntimeError, MemoryError, OverflowError, TypeError, SyntaxError,
    tokenize.TokenError,
)  # fmt: skip


def read_arrays(path: str | Path, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file, all or some, by name; nothing is unpickled.

    An archive has a CRC-32 of each member, but it is compared only where the member is read to its
    end: an array whose damaged header tells of fewer values than there are is read short, without
    an error (`numpy.load` gives it). Here it is one.

    Raises:
      One of `DAMAGE`: there is no such file, it is damaged, or lacks an array.
    """
    found = {}
    with zipfile.ZipFile(path) as archive:
        names = [f"{key}.npy" for key in only] if only is not None else archive.namelist()
        for name in names:
            with archive.open(name) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):
                    raise ValueError(f"{name}: holds more data than its header declares")
            found[name.removesuffix(".npy")] = array
    return found


def names_in(path: str | Path) -> set[str]:
    """The names of the arrays of a file. Raises one of `DAMAGE`."""
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}
