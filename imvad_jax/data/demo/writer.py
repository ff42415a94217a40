"""Writes the drawn dataset to disk in MVTec AD's layout, whole categories or none."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imvad_jax.data.demo.catalogue import CATEGORIES, draw
from imvad_jax.errors import UserError, choose, say
from imvad_jax.files import create_atomically, is_temporary, write_atomically
from imvad_jax.progress import silent_progress, tqdm_progress

MARKER = "demo.json"
_VERSION = 1  # of the drawings: raise it when the same arguments give other pictures
_LICENSE = """\
These images and masks are drawn by the project imvad_jax (imvad_jax/data/demo); they show no real
product. They are dedicated to the public domain under CC0 1.0 Universal:
https://creativecommons.org/publicdomain/zero/1.0/
"""


def write_demo_dataset(
    out_dir: str | os.PathLike[str],
    categories: Sequence[str] | None = None,
    *,
    seed: int = 0,
    size: int = 256,
    train: int = 60,
    test_good: int = 20,
    test_per_defect: int = 8,
    progress: bool = True,
) -> Path:
    """Writes `out_dir/<category>/{train,test,ground_truth}/...` and returns `out_dir`.

    A category appears under its name only when it is complete; a run that was killed is taken up
    where it stopped. With the same arguments on a complete dataset nothing is drawn.

    Args:
      out_dir: a new or empty folder, or one that this function wrote with the same arguments.
      categories: names in CATEGORIES; None is all of them.
      seed, size, train, test_good, test_per_defect: what `demo.json` in `out_dir` remembers.
      progress: shows a bar, and says where a complete dataset was found.

    Raises:
      UserError: for unknown names or numbers that make no sense, for a folder that holds
        something else, or a demo dataset with other arguments.
    """
    out = Path(out_dir)
    names = sorted({choose("category", c, CATEGORIES) for c in categories or CATEGORIES})
    counts = {"train": train, "test_good": test_good, "test_per_defect": test_per_defect}
    for what, value, least in [
        ("seed", seed, 0),
        ("size", size, 32),
        *((k, v, 1) for k, v in counts.items()),
    ]:
        if value < least:
            raise UserError(f"{what}: found {value}; expected at least {least}")
    wanted = {
        "dataset": "imvad_jax demo",
        "version": _VERSION,
        "categories": names,
        "seed": seed,
        "size": size,
        **counts,
    }

    try:
        if not _claim(out, wanted):
            # Never left half-written: the marker comes before the first category.
            _write_text(out / MARKER, json.dumps(wanted, indent=1) + "\n")
        if not (out / "license.txt").exists():
            _write_text(out / "license.txt", _LICENSE)
        missing = [name for name in names if not (out / name).is_dir()]
        if not missing and progress:
            say(f"{out}: the demo dataset is there already")
        for name in missing:
            _write_category(out, name, seed, size, counts, progress=progress)
    except OSError as e:
        raise UserError(f"out_dir: cannot write to '{out}': {e.strerror or e}") from e
    return out


def _claim(out: Path, wanted: dict) -> bool:
    """True if `out` holds this dataset (perhaps unfinished), False if it is free to take."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"out_dir: '{out}' is a file; expected a folder, new or empty")
    marker = out / MARKER
    if not marker.is_file():
        found = sorted(p.name for p in out.iterdir() if not is_temporary(p.name))
        if found:
            raise UserError(
                f"out_dir: '{out}' holds '{found[0]}' and no {MARKER}; "
                "expected a new or empty folder, or a demo dataset"
            )
        return False
    try:
        had = dict(json.loads(marker.read_text()))
    except (ValueError, TypeError):
        raise UserError(f"out_dir: '{marker}' is not readable; remove '{out}' first") from None
    if had.get("dataset") != wanted["dataset"]:
        raise UserError(
            f"out_dir: '{marker}' is of another program; expected a new or empty folder, or a "
            "demo dataset"
        )
    for key in wanted:
        if had.get(key) != wanted[key]:
            raise UserError(
                f"out_dir: '{out}' holds a demo dataset with {key} {had.get(key)}, not "
                f"{wanted[key]}; choose another folder or remove this one"
            )
    for name in wanted["categories"]:
        paths = [out / name / split / defect / f"{index:03d}.png"
                 for split, defect, index in _pictures(name, wanted)]  # fmt: skip
        if (lost := [path for path in paths if not path.is_file()]) and (out / name).exists():
            raise UserError(
                f"out_dir: '{out / name}' is there and no whole category ('{lost[0].name}' is "
                "missing); it is left as it is: move it, or choose another folder"
            )
    return True


def _write_category(
    out: Path, name: str, seed: int, size: int, counts: dict[str, int], *, progress: bool
) -> None:
    """Draws one category into a folder beside its place, then puts it there in one step."""
    jobs = list(_pictures(name, counts))

    def create(temporary: Path) -> None:
        done = (tqdm_progress if progress else silent_progress)(len(jobs), name)
        for split, defect, index in jobs:
            image, mask = draw(name, split, defect, index, seed=seed, size=size)
            _write_png(temporary / split / defect / f"{index:03d}.png", image)
            if defect != "good":
                _write_png(temporary / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
            done(1)

    create_atomically(out / name, create)


def _pictures(name: str, counts: dict[str, int]) -> Iterator[tuple[str, str, int]]:
    """Yields (split, defect, index) of every picture of a category."""
    folders = [("train", "good", counts["train"]), ("test", "good", counts["test_good"])]
    folders += [("test", d, counts["test_per_defect"]) for d in CATEGORIES[name].defects]
    for split, defect, count in folders:
        yield from ((split, defect, index) for index in range(count))


def _write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=3)


def _write_text(path: Path, text: str) -> None:
    """Whole or not at all, as the categories are."""
    write_atomically(path, lambda file: file.write(text.encode()))
