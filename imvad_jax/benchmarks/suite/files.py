"""The output files of the suite: marked JSON files, and one archive of all of them."""

import re
import zipfile
from pathlib import Path

from imvad_jax import sealed
from imvad_jax.marks import MARK
from imvad_jax.owned import write_own

ARCHIVE = "suite.zip"
STATE = "suite.json"
SUMMARY = "summary.txt"
# Names that any transport takes: at most two folders deep.
_NAME = re.compile(r"[A-Za-z0-9.-]+(/[A-Za-z0-9.-]+){0,2}")
_PATTERNS = (STATE, SUMMARY, "results/*.json", "benchmarks/*.json", "logs/*.txt")


def write_json(path: Path, value: dict) -> None:
    """Writes a JSON file with the mark first, atomically. Raises UserError over another's file."""
    text = sealed.dumps({"mark": MARK} | value)
    write_own(path, lambda file: file.write(text.encode()))


def read_json(path: Path) -> dict | None:
    """What is in a JSON file; None where there is none, or a damaged one."""
    try:
        found = sealed.read(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def plain_name(text: str) -> str:
    """Text as a file name of letters, digits, `-` and `.`."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)


def write_archive(out: Path) -> Path:
    """All files but the work itself, in `suite.zip`; returns its path.

    Raises:
      ValueError: a name that not every transport takes.
    """
    paths = [path for pattern in _PATTERNS for path in sorted(out.glob(pattern))]
    names = [path.relative_to(out).as_posix() for path in paths]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name}: expected letters, digits, - and . in a name")

    def write(file):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in zip(paths, names):
                # The first one is stored as it is, so that the mark can be read.
                how = zipfile.ZIP_STORED if name == STATE else zipfile.ZIP_DEFLATED
                archive.write(path, name, how)

    write_own(out / ARCHIVE, write)
    return out / ARCHIVE
