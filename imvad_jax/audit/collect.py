"""All that is known of the images of a category, kept beside its decoded cache."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imvad_jax.archives import DAMAGE, read_arrays
from imvad_jax.audit import duplicates, files, statistics
from imvad_jax.data import decoded_cache
from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.data.category import CategoryData
from imvad_jax.data.reading import Reading
from imvad_jax.errors import UserError
from imvad_jax.files import kept_if_possible, write_atomically

VERSION = 1  # of the numbers: what an earlier program kept is not taken
NOT_INSTALLED = "near copies are not looked for: imagehash is not installed (pip install imagehash)"
NOT_DECODED = (
    "the numbers of their pixels are left out, as the images are decoded anew in every pass "
    "(`imvad audit` looks at them)"
)
NO_FILES = "nothing is known of the files: only their decoded cache is there"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of N images. Numbers that are not known are NaN, texts are empty.

    Attributes:
      names: N; of a category the names of its training images, then those of its test images.
      numbers: float64 `[N]` by name.
      texts: N by name: the `size`, `mode`, `format` and `camera` of the files.
      contents, digests: N texts, equal for equal files and for equal pixels.
      hashes: uint64 `[N]`, perceptual; None: not made.
      thumbnails: uint8 `[N, 32, 32]`, grey; None: no pixels were looked at.
      notes: What could not be looked at.
      paths: N, of the files; None: they are not there.
    """

    names: list[str]
    numbers: dict[str, np.ndarray]
    texts: dict[str, list[str]]
    contents: list[str]
    digests: list[str]
    hashes: np.ndarray | None
    thumbnails: np.ndarray | None
    notes: tuple[str, ...] = ()
    paths: Sequence[str] | None = None

    def take(self, chosen: Sequence[int]) -> "Facts":
        """What is known of the images of these numbers."""
        index = np.asarray(chosen, int)

        def some(values):
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[index]
            return [values[number] for number in index]

        return dataclasses.replace(
            self,
            names=some(self.names),
            numbers={name: some(values) for name, values in self.numbers.items()},
            texts={name: some(values) for name, values in self.texts.items()},
            contents=some(self.contents), digests=some(self.digests), hashes=some(self.hashes),
            thumbnails=some(self.thumbnails), paths=some(self.paths),
        )  # fmt: skip


def collect(
    names: Sequence[str], parts: Sequence[Images | None], paths: Sequence[str] | None
) -> Facts:
    """What is known of images.

    Args:
      names: N, one for each image of all parts.
      parts: Their decoded images; None: their pixels are not looked at.
      paths: N, of their files; None: nothing is known of these.
    """
    notes = []
    known = None if paths is None else files.read_facts(paths)
    numbers = {} if known is None else dict(known.numbers)
    hashes = thumbnails = None
    digests = [""] * len(names)
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        notes.append(NOT_DECODED)
    else:
        found = [statistics.measure(part) for part in there]
        pixels = {
            name: np.concatenate([one.numbers[name] for one in found]) for name in statistics.NAMES
        }
        numbers = pixels | numbers
        thumbnails = np.concatenate([one.thumbnails for one in found])
        digests = [digest for one in found for digest in one.digests]
        try:
            hashes = duplicates.perceptual_hashes(thumbnails)
        except ImportError:
            notes.append(NOT_INSTALLED)
    if known is None:
        notes.append(NO_FILES)
    return Facts(
        names=list(names), numbers=numbers, texts={} if known is None else known.texts,
        contents=[""] * len(names) if known is None else known.contents, digests=digests,
        hashes=hashes, thumbnails=thumbnails, notes=tuple(notes), paths=paths,
    )  # fmt: skip


def joined(one: Facts, other: Facts) -> Facts:
    """What is known of the images of two sets; numbers that only one of them knows are left out.

    Equal files are found anew where one of the sets has no others of their size: a digest is empty
    there, so that equal pixels tell.
    """

    def both(first, second, join=lambda parts: np.concatenate(parts)):
        return None if first is None or second is None else join([first, second])

    return Facts(
        names=one.names + other.names,
        numbers={
            name: np.concatenate([values, other.numbers[name]])
            for name, values in one.numbers.items() if name in other.numbers
        },
        texts={
            name: list(values) + list(other.texts[name])
            for name, values in one.texts.items() if name in other.texts
        },
        contents=one.contents + other.contents, digests=one.digests + other.digests,
        hashes=both(one.hashes, other.hashes), thumbnails=both(one.thumbnails, other.thumbnails),
        notes=tuple(dict.fromkeys([*one.notes, *other.notes])),
        paths=both(one.paths, other.paths, lambda parts: [*parts[0], *parts[1]]),
    )  # fmt: skip


def of_category(
    data: CategoryData, cache_dir: str | None, reading: Reading, decode: bool = False
) -> Facts:
    """What is known of the good images of a category, those held out too, and of its test images.

    It is kept in `cache_dir` beside the decoded cache, under the name of that, and taken from there
    the next time. Where the cache cannot be written, one warning says so.

    Args:
      data: The category, its images decoded.
      cache_dir: Where its decoded images are kept; None: nothing is kept.
      reading: How its files were read.
      decode: Whether images that are not held in memory are decoded for it.
    """
    good = list(data.train_names) + list(data.held_out_names)
    names = good + list(data.test_names)
    parts = [data.train, *([data.held_out] if data.held_out is not None else []), data.test]
    if not decode or data.tiling:
        parts = [part if isinstance(part, ArrayImages) else None for part in parts]
    path, paths = _path(data, cache_dir, reading), _paths(data, names)
    if path and path.is_file() and (found := _load(path, names)):
        return dataclasses.replace(found, paths=paths)
    found = collect(names, parts, paths)
    complete = found.hashes is not None and None not in parts
    if path and complete:
        kept_if_possible(functools.partial(_write, path, found))
    return found


def _paths(data: CategoryData, names: Sequence[str]) -> list[str] | None:
    if data.files is None:
        return None
    known = {sample.name: sample.path for sample in data.files.train + data.files.test}
    return [known[name] for name in names]


def _path(data: CategoryData, cache_dir: str | None, reading: Reading) -> Path | None:
    """Where the facts of a category are kept: `.audit`, as each .npz counts as a decoded cache."""
    if not cache_dir or data.tiling:
        return None
    if data.files is None:
        path = decoded_cache.find(cache_dir, data.dataset, data.name, data.geometry)
    else:
        mark = decoded_cache.fingerprint(data.files, reading)
        path = decoded_cache.path_of(cache_dir, data.dataset, data.name, data.geometry, mark)
    return path.with_name(f"{path.stem}-{VERSION}.audit")


_LISTS = ("contents", "digests")


def _write(path: Path, facts: Facts) -> None:
    arrays = {f"number {name}": values for name, values in facts.numbers.items()}
    arrays |= {f"text {name}": np.array(values, np.str_) for name, values in facts.texts.items()}
    arrays |= {name: np.array(getattr(facts, name), np.str_) for name in ("names", *_LISTS)}
    arrays |= {"hashes": np.asarray(facts.hashes), "thumbnails": np.asarray(facts.thumbnails)}
    arrays["notes"] = np.array(facts.notes, np.str_)
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def _load(path: Path, names: Sequence[str]) -> Facts | None:
    """What was kept, for images of these names in this order; None where it does not fit."""
    try:
        arrays = read_arrays(path)
        places = {name: place for place, name in enumerate(arrays["names"].tolist())}
        order = np.array([places[name] for name in names], int)
        count = len(places)
        notes = tuple(arrays.pop("notes").tolist())
        if any(len(values) != count for values in arrays.values()):
            raise ValueError("arrays of different lengths")
        if arrays["thumbnails"].shape[1:] != (statistics.THUMBNAIL,) * 2:
            raise ValueError("thumbnails of another size")
        arrays = {name: values[order] for name, values in arrays.items()}
        return Facts(
            names=list(names),
            numbers={
                name.removeprefix("number "): values.astype(np.float64)
                for name, values in arrays.items() if name.startswith("number ")
            },
            texts={
                name.removeprefix("text "): values.tolist()
                for name, values in arrays.items() if name.startswith("text ")
            },
            contents=arrays["contents"].tolist(), digests=arrays["digests"].tolist(),
            hashes=arrays["hashes"].astype(np.uint64), thumbnails=arrays["thumbnails"],
            notes=notes,
        )  # fmt: skip
    except (*DAMAGE, LookupError, AttributeError, UserError):
        return None  # it is made anew
