"""What a directory holds, so that two of them can be compared bit for bit.

Left out is what says when and how fast something was made.
"""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import jax
import numpy as np

from imvad_jax.files import is_temporary
from imvad_jax.training.checkpoint import load_variables

# Fields of JSON files; the digest is of the others.
OF_TIME = {"timings", "seconds", "images_per_s", "commit", "digest"}
TIMES_ON_PAGES = re.compile(
    r"(?s)<th>stage</th>.*?</table>|seconds a cell</th>.*?</table>|\d+ s(?=\">)"
)
OF_PLACE = {"checkpoint", "checkpoints"}  # fields that name folders: of a saved model


def digest(data: bytes) -> str:
    """A short name of what the bytes are."""
    return hashlib.sha256(data).hexdigest()[:16]


def snapshot(top: Path) -> dict[str, str]:
    """Digests by path relative to `top`; a folder of variables is one entry."""
    found, folders = {}, []
    for record in top.rglob("config.json"):
        name = json.loads(record.read_text()).get("checkpoint", "checkpoint")
        if (record.parent / name).is_dir():
            folders.append(record.parent / name)
            key = (record.parent / "checkpoint").relative_to(top).as_posix()
            found[key] = _variables(record.parent)
    for path in sorted(top.rglob("*")):
        inside = any(folder in (path, *path.parents) for folder in folders)
        if path.parent.name == "training":  # what orbax keeps there has names drawn at random
            found[path.relative_to(top).as_posix()] = "checkpoint of an epoch"
        inside = inside or "training" in path.parts
        if path.is_file() and not inside and "logs" not in path.parts:
            found[path.relative_to(top).as_posix()] = _file(path)
    return found


def temporary(top: Path) -> list[str]:
    """What a process has not completed and nobody has swept."""
    return [path.name for path in top.rglob("*") if is_temporary(path.name)]


def _variables(directory: Path) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(load_variables(directory))
    text = [f"{jax.tree_util.keystr(p)} {a.dtype} {a.shape} {digest(a.tobytes())}"
            for p, a in leaves]  # fmt: skip
    return digest("\n".join(sorted(text)).encode())


def _file(path: Path) -> str:
    if path.name == "timings.json":
        return "timings"
    if path.suffix == ".json":
        return digest(json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True).encode())
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            text = [f"{n} {arrays[n].dtype} {digest(arrays[n].tobytes())}" for n in arrays.files]
        return digest("\n".join(text).encode())
    if zipfile.is_zipfile(path):  # whose entries carry the time at which they were written
        with zipfile.ZipFile(path) as entries:
            text = [f"{name} {digest(entries.read(name))}" for name in entries.namelist()]
        return digest("\n".join(text).encode())
    if path.suffix == ".html":
        return digest(TIMES_ON_PAGES.sub("", path.read_text()).encode())
    return digest(path.read_bytes())


def _timeless(value):
    if isinstance(value, dict):
        left_out = OF_TIME | OF_PLACE
        return {key: _timeless(entry) for key, entry in value.items() if key not in left_out}
    return [_timeless(entry) for entry in value] if isinstance(value, list) else value
