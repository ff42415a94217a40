"""Nothing is ever replaced or deleted but what the program wrote itself (`marks.is_ours`).

A directory is written to if it is new, empty, or holds a result of the program; of what lies in it
a program touches its own files alone.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from imvad_jax.errors import UserError
from imvad_jax.files import is_temporary, write_atomically
from imvad_jax.marks import FOLDERS, is_ours, orbax_files

NAMED = 3  # of somebody else's files, in a message
_OF_THE_SYSTEM = {".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a program leaves in a directory."""

    what: str  # in words, for messages
    proofs: tuple[str, ...]  # patterns of files of which one, if ours, makes the directory ours
    names: tuple[str, ...]  # what may be written or replaced
    nested: bool = False  # folders that hold runs may lie in it from the start


RUN = Kind(
    "a run of experiments.run", ("config.json", "error.json"),
    ("config.json", "error.json", "metrics.json", "timings.json", "calibration.json",
     "history.json", "audit.json", "learning_curve.png", "predictions.npz", "report.html",
     "heatmaps", "checkpoint", "training"), nested=True,
)  # fmt: skip
CATEGORIES = Kind(
    "a run of several categories", ("index.html", "*/config.json"), ("index.html",), nested=True
)
TABLE = Kind(
    "a table", ("table.json", "*/*/*-seed*/config.json", "*/*/*-seed*/error.json"),
    ("table.html", "table.md", "table.csv", "table.json", "logs"), nested=True,
)  # fmt: skip
PREDICTION = Kind(
    "an earlier result", ("results.json",),
    ("results.json", "results.csv", "index.html", "heatmaps"),
)  # fmt: skip
BENCHMARK = Kind(
    "an earlier benchmark", ("benchmark.json", "scaling.json", "*/benchmark.json"),
    ("benchmark.json", "benchmark.png", "scaling.json", "scaling.png"), nested=True,
)  # fmt: skip
SUITE = Kind(
    "an earlier suite", ("suite.json",), ("suite.json", "suite.zip", "summary.txt"),
)  # fmt: skip
AUDIT = Kind("an earlier audit", ("audit.json",), ("audit.json", "index.html"))
PARCEL = Kind("an earlier parcel", ("parcel.json",), ("parcel.json",))

_ANY = Kind("", (), ())


def write_own(
    path: str | Path,
    write: Callable[[BinaryIO], object],
    test: Callable[[str | Path], bool] = is_ours,
) -> None:
    """`files.write_atomically`, but what is there is replaced only if the program wrote it.

    Raises:
      UserError: a file that is not the program's is there. It stays as it is.
    """
    refuse_foreign(path, test=test)
    write_atomically(path, write)


def refuse_foreign(
    path: str | Path, flag: str = "", test: Callable[[str | Path], bool] = is_ours
) -> None:
    """Raises UserError if something that the program did not write is at `path`, as `test` says."""
    if os.path.lexists(path) and not test(path):
        raise UserError(
            f"{flag}{path}: is there already and was not written by this program; it is left as "
            "it is: move it, or choose another place"
        )


def check_directory(directory: str | Path, kind: Kind, flag: str = "--workdir") -> None:
    """Refuses a directory whose files are somebody else's; nothing is written or deleted.

    What lies beside a result of the program and has a name that it does not use is no hindrance.

    Raises:
      UserError: `directory` is a file or lies below one, holds other files and no result of this
        kind, or holds something that is not ours under a name that would be written.
    """
    top = Path(directory)
    above = next((p for p in (top, *top.absolute().parents) if os.path.lexists(p)), top)
    if not above.is_dir():
        raise UserError(
            f"{flag}={top}: cannot be written: {above} is a file; expected a directory, or none yet"
        )
    if above != top:
        return
    try:
        found = sorted(entry.name for entry in os.scandir(top))
        proven = any(is_ours(path) for pattern in kind.proofs for path in top.glob(pattern))
    except OSError as error:
        raise UserError(f"{flag}={top}: cannot be read ({error.strerror})") from None
    other = (name for name in found if not proven and not _is_expected(top / name, kind))
    named = [_shown(name) for name in itertools.islice(other, NAMED + 1)]
    if named:
        proofs = (path for pattern in kind.proofs for path in top.glob(pattern))
        damaged = next(filter(_is_no_json, proofs), None)
        hint = f"; {damaged.relative_to(top)} there is no JSON: is it damaged?" if damaged else ""
        named[NAMED:] = ["..."] * (len(named) > NAMED)
        raise UserError(
            f"{flag}={top}: holds other files ({', '.join(named)}); expected a new or empty "
            f"directory, or {kind.what}{hint}"
        )
    for name in kind.names:
        refuse_foreign(top / name, f"{flag}: ")


def foreign_names(directory: Path) -> Iterator[str]:
    """What lies in a directory besides what systems and killed processes of ours leave there."""
    return (path.name for path in directory.iterdir() if not _is_expected(path, _ANY))


def remove_checkpoint(folder: Path) -> None:
    """Deletes what orbax wrote to a folder, and the folder if nothing else is in it."""
    for path in orbax_files(folder)[0]:
        path.unlink(missing_ok=True)
    for top, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(top):
            os.rmdir(top)


def _is_expected(path: Path, kind: Kind) -> bool:
    """Whether something may lie in a directory that holds no result of the kind yet."""
    if path.name in _OF_THE_SYSTEM or is_temporary(path.name):
        return True
    if not path.is_dir():
        return kind.nested and is_ours(path)
    inside = (name for _, _, names in os.walk(path) for name in names)
    if not path.is_symlink() and all(map(is_temporary, inside)):
        return True  # nothing in it to lose, and perhaps another process of ours begins there
    # A folder such as checkpoint/ proves nothing by itself.
    return kind.nested and (path.name == "logs" or path.name not in FOLDERS) and is_ours(path)


def _is_no_json(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return False


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
