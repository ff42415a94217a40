"""Removes the prefixes of wrapped networks from tensor names: `module.`, `_orig_mod.` and the like.

Data parallelism adds `module.` to each name, torch.compile adds `_orig_mod.`, and a network with
the backbone as an attribute adds `model.` or `backbone.`; they nest in any order. A submodule that
was compiled on its own has `_orig_mod.` inside its names.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

_WRAPPED = re.compile(r"(?:(?:_orig_mod|module|model|backbone)\.)+")
_COMPILED_PART = "._orig_mod."


class Names(NamedTuple):
    """`keys` maps timm's names to those of the file, where `prefix` stands before each."""

    keys: dict[str, str]
    prefix: str
    others: tuple[str, ...]  # prefixes under which as many of the needed tensors lie


def find_names(
    file_names: Iterable[str], rename: Callable[[str], str], needed: Iterable[str]
) -> Names:
    """Returns the names under the prefix that has most of the needed tensors.

    Where several have as many, the shortest is taken, then the first in the file.

    Args:
      file_names: the names in the file.
      rename: translates a name without its prefix to timm's.
      needed: timm's names of the tensors in use.
    """
    groups: dict[str, dict[str, str]] = {"": {}}
    for key in file_names:
        match = _WRAPPED.match(key)
        prefix = match[0] if match else ""
        name = key[len(prefix) :].replace(_COMPILED_PART, ".")
        groups.setdefault(prefix, {})[rename(name)] = key
    needed = set(needed)
    found = {prefix: sum(name in needed for name in keys) for prefix, keys in groups.items()}
    most = max(found.values())
    best = sorted((prefix for prefix in groups if found[prefix] == most), key=len)
    return Names(groups[best[0]], best[0], tuple(best[1:]) if most else ())


def nearest(name: str, file_names: Iterable[str]) -> str | None:
    """Returns the name of the file that is `name` behind some other prefix, if there is one."""
    return next((key for key in file_names if key.endswith(f".{name}")), None)
