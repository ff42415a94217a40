"""A tensor of a file whose shape and dtype are known before its values are read."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Malformed(Exception):
    """The bytes do not follow the format; readers turn it into a UserError naming the file."""


@dataclass(frozen=True)
class LazyTensor:
    """What the file says of a tensor; `numpy.asarray` reads it.

    A shape that is not the one expected can so be refused before anything of its size exists.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = field(repr=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype=dtype, copy=copy)


@dataclass(frozen=True)
class Contents:
    """The tensors of a file, each described on access, and notes for the user.

    `describe` raises Malformed, or what the format's library raises for a damaged file.
    """

    describe: dict[str, Callable[[], LazyTensor]]
    notes: tuple[str, ...] = ()
