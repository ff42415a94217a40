"""Arrays that orbax stores, with a digest of each, which is compared when they are read.

Orbax compares nothing: of twelve files with a changed byte it gave twelve times other weights.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imvad_jax.digests import digest_of_array

METADATA = "_CHECKPOINT_METADATA"  # orbax's file; it ends a checkpoint
_FIELD = "digests"  # of what orbax lets us put there
_UNREADABLE = (PermissionError, BlockingIOError, InterruptedError, TimeoutError)


class DamagedError(Exception):
    """What was stored cannot be read, or is not what was stored; the message says why."""


def digests_of(tree: Any) -> dict[str, str]:
    """The digest of each leaf of a tree of host arrays, by its path such as `memory/bank`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): digest_of_array(leaf) for path, leaf in leaves}


def metadata(tree: Any) -> dict[str, dict[str, str]]:
    """What goes into a checkpoint beside a tree of host arrays: orbax's `custom_metadata`."""
    return {_FIELD: digests_of(tree)}


def restore(folder: Path, read: Callable[[], Any]) -> Any:
    """What `read` gives of the checkpoint in a folder, as host arrays, each compared.

    Checkpoints from before there were digests are read without a check.

    Raises:
      DamagedError: it cannot be read, or an array is another one than was stored; it is named.
      OSError: this process may not read it, or not now.
    """
    stated = _stated(folder)
    try:
        tree = jax.tree.map(np.asarray, read())
    except _UNREADABLE:
        raise
    except Exception as error:  # what orbax and tensorstore raise shares no base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DamagedError(reason) from None
    if stated is not None:
        _compare(digests_of(tree), stated)
    return tree


def _compare(found: dict[str, str], stated: dict[str, str]) -> None:
    for name in sorted(found.keys() | stated.keys()):
        if name not in found:
            raise DamagedError(f"{name} is missing")
        if name not in stated:
            raise DamagedError(f"{name} was not stored there")
        if found[name] != stated[name]:
            raise DamagedError(
                f"{name} has the digest {found[name]}, expected {stated[name]!s:.40}"
            )


def _stated(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / METADATA).read_bytes())
        stated = (found.get("custom_metadata") or {}).get(_FIELD)
    except (ValueError, AttributeError, FileNotFoundError, RecursionError) as error:
        raise DamagedError(f"{METADATA}: {str(error)[:150]}") from None
    if stated is not None and not isinstance(stated, dict):
        raise DamagedError(f"{METADATA}: its digests are no object")
    return stated


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
