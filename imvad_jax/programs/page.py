"""A page that a program writes, or compares with what it is made from."""

import sys
from collections.abc import Mapping
from pathlib import Path

from imvad_jax.errors import UserError
from imvad_jax.owned import write_own


def write_or_check(path: Path, text: str, *, check: bool, stale: str) -> int:
    """Writes a page, or with `check` compares it alone; returns the exit status.

    Args:
      path: The page, in a directory that is there: none is made.
      text: What it is to hold.
      check: Whether nothing is written.
      stale: What is said of a page that differs; the status is 1 then.

    Raises:
      UserError: it cannot be written, or a file that no program wrote is in its place.
    """
    if check:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return 0
        print(stale, file=sys.stderr)
        return 1
    try:
        path.parent.stat()  # none is made
        write_own(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"--out: cannot write {path} ({error.strerror})") from None
    return 0


def said(pages: Mapping[Path, int], check: bool) -> tuple[str, dict]:
    """What was done with pages, by path the status of `write_or_check`: in words, and as JSON."""
    if check:
        states = ["differs" if status else "fits" for status in pages.values()]
    else:
        states = ["written"] * len(pages)
    found = [{"page": str(path), "state": state} for path, state in zip(pages, states)]
    lines = [f"{state}: {path}" for path, state in zip(pages, states) if state != "differs"]
    return "\n".join(lines), {"pages": found}
