"""The decoded cache: the images and masks of a category at one size, in one compressed file."""

import glob
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, cast

import numpy as np

from imvad_jax import names
from imvad_jax.archives import DAMAGE, read_arrays
from imvad_jax.data import layouts
from imvad_jax.data.decode import FILTERS, MASK_RULES, Geometry
from imvad_jax.data.reading import VERSION, Reading
from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically

_USUAL = ("bilinear", "half")


def fingerprint(files: layouts.Category, reading: Reading) -> str:
    """Changes where other files would be read, or the same ones in another way.

    It is made of names, sizes and times of change of all files and of what `reading` says.
    """
    digest = hashlib.sha256(json.dumps(reading.decisive, sort_keys=True).encode())
    for sample in files.train + files.test:
        digest.update(f"{sample.name}|{sample.defect}".encode())
        for path in (sample.path, *sample.mask_paths):
            try:
                stat = os.stat(path)
                digest.update(f"|{stat.st_size}|{stat.st_mtime_ns}".encode())
            except OSError:  # reported when it is read
                digest.update(b"|not there")
    return digest.hexdigest()[:12]


def stem(dataset: str, name: str, geometry: Geometry) -> str:
    """How the files of a category at one geometry begin; the version keeps older ones apart."""
    # Bilinear and half are not named: caches that were made before there was a choice are those.
    named = "" if (geometry.resize, geometry.mask_rule) == _USUAL else (
        f"{geometry.resize}-{geometry.mask_rule}-"
    )  # fmt: skip
    return f"{dataset}-{names.safe(name)}-{geometry.size}-{geometry.crop}-{named}v{VERSION}-"


def path_of(cache_dir: str | Path, dataset: str, name: str, geometry: Geometry, mark: str) -> Path:
    """Where the cache of a category lies, `mark` being its fingerprint."""
    return Path(cache_dir).expanduser() / f"{stem(dataset, name, geometry)}{mark}.npz"


def find(cache_dir: str | None, dataset: str, name: str, geometry: Geometry) -> Path:
    """The one cache of a category whose files are not at hand.

    Raises:
      UserError: there is none, or several.
    """
    if not cache_dir:
        raise UserError("--data_dir and --cache_dir are missing: there is nothing to read")
    begin = stem(dataset, name, geometry)
    found = sorted(Path(cache_dir).expanduser().glob(glob.escape(begin) + "*.npz"))
    if len(found) != 1:
        what = f"{len(found)} decoded caches" if found else "no decoded cache"
        raise UserError(
            f"--cache_dir={cache_dir}: {what} named {begin}*.npz; expected one. "
            "Pass the dataset with --data_dir, or copy the cache of this category and size here"
        )
    return found[0]


def cached_categories(cache_dir: str | None, dataset: str) -> list[str]:
    """Names of the categories of `dataset` that have a cache, sorted."""
    if not cache_dir:
        return []
    rules = rf"(?:(?:{'|'.join(FILTERS)})-(?:{'|'.join(MASK_RULES)})-)?"
    pattern = re.compile(
        rf"{re.escape(dataset)}-(.+)-\d+-\d+-{rules}v{VERSION}-[0-9a-f]{{12}}\.npz"
    )
    found = set()
    for path in Path(cache_dir).expanduser().glob("*.npz"):
        if match := pattern.fullmatch(path.name):
            # What no file can be called is in the file alone.
            found.add(_category_in(path) if names.is_changed(match[1]) else match[1])
    return sorted(found)


def _category_in(path: Path) -> str:
    """The category whose images a cache holds. Raises UserError for a damaged file."""
    try:
        return json.loads(str(read_arrays(path, ["meta"])["meta"]))["category"]
    except DAMAGE as error:
        raise damaged(path, error) from None


def write(path: Path, meta: dict, arrays: dict[str, np.ndarray], compressed: bool = True) -> None:
    """Writes a cache atomically; `meta` is anything that JSON holds.

    Raises:
      NotWritten: for example, the disk is full or read-only.
    """
    save = np.savez_compressed if compressed else np.savez
    named = {"meta": np.array(json.dumps({"version": VERSION, **meta})), **arrays}
    # numpy's stubs take an array of any name for its own argument `allow_pickle`.
    write_atomically(path, lambda file: save(file, **cast(Any, named)))


def load(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What `write` was given. Raises UserError for a damaged file; it is named."""
    try:
        arrays = read_arrays(path)
        meta = json.loads(str(arrays.pop("meta")))
        if meta["version"] != VERSION:
            raise ValueError(f"version {meta['version']}, expected {VERSION}")
        return meta, arrays
    except DAMAGE as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """What is said of a cache that cannot be used."""
    return UserError(
        f"{path}: the decoded cache is damaged ({error}); pass --data_dir to rebuild it, or "
        "restore it from a copy"
    )
