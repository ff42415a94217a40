"""Opens a .safetensors file: its header's size and its types of numbers are checked first."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

from imvad_jax.backbones.lazy_tensor import Contents, LazyTensor, Malformed
from imvad_jax.backbones.wording import shown
from imvad_jax.errors import UserError, readable

# Some 120 bytes a tensor; the format itself allows 100 MB, which take seconds to read.
_HEADER_BYTES = 1 << 22
# Types that are not here (F8_E4M3, F4 and the like) are quantised and mean nothing by themselves.
_TYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def open_safetensors(path: Path, closing: ExitStack) -> Contents:
    """Returns the tensors of the file, which is open until `closing` closes.

    Raises:
      Malformed: the header is too large.
      UserError: A requested tensor is quantised.
      SafetensorError: the header is not well formed.
    """
    with path.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if length > _HEADER_BYTES:
        raise Malformed(f"its header has {length:,} bytes, expected at most {_HEADER_BYTES:,}")
    file = closing.enter_context(safe_open(path, "np"))
    names = file.keys()
    return Contents({name: partial(_describe, path, file, name) for name in names})


def _describe(path: Path, file: Any, name: str) -> LazyTensor:
    told = file.get_slice(name)
    kind, shape = told.get_dtype(), tuple(told.get_shape())
    if kind not in _TYPES:
        raise UserError(
            f"{readable(path)}: tensor '{shown(name)}' is of type {kind}, expected one of "
            f"{', '.join(_TYPES)}; take weights that are not quantised"
        )
    return LazyTensor(shape, _TYPES[kind], partial(file.get_tensor, name))
