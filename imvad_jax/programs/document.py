"""Writes docs/flags.md and docs/api.md from the programs: python -m experiments.document

With --check nothing is written; the exit status is 1 if a page is out of date.
"""

import sys
from pathlib import Path

from absl import flags

from imvad_jax.errors import UserError
from imvad_jax.owned import write_own
from imvad_jax.programs import program
from imvad_jax.programs.api_page import api_page
from imvad_jax.programs.flags_page import flags_page

COMMAND = "python -m experiments.document"
NOTICE = f"<!-- Written by `{COMMAND}`; do not edit. -->"
PAGES = {"flags.md": flags_page, "api.md": api_page}

_OUT = program.define_path("out", "docs", "Directory to write to.")
_CHECK = flags.DEFINE_bool(
    "check", False, "Write nothing; exit with status 1 if a page is out of date."
)


def write_pages(out: Path, check: bool) -> int:
    """Writes the pages, or compares them (`check`); returns the exit status."""
    status = 0
    for name, page in PAGES.items():
        path, text = out / name, page(NOTICE)
        if not check:
            write_own(path, lambda file, text=text: file.write(text.encode()))
            print(f"written: {path}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path} does not fit the code; run: {COMMAND}", file=sys.stderr)
            status = 1
    return status


def main() -> int:
    """The program."""
    try:
        return write_pages(Path(_OUT.value), _CHECK.value)
    except BrokenPipeError:  # nobody reads what is said
        raise
    except OSError as error:
        raise UserError(f"--out={_OUT.value}: cannot be written ({error.strerror})") from None
