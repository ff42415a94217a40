"""Writes docs/flags.md, docs/api.md and docs/methods from the code: python -m experiments.document

The tables of README.md and docs/index.md are made from the stored results and benchmarks. With
--check nothing is written; the exit status is 1 if a page is out of date.
"""

import sys
from pathlib import Path

from absl import flags

from imvad_jax.benchmarks import headline
from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically
from imvad_jax.owned import write_own
from imvad_jax.programs import methods_page, program
from imvad_jax.programs.api_page import api_page
from imvad_jax.programs.flags_page import flags_page

COMMAND = "python -m experiments.document"
NOTICE = f"<!-- Written by `{COMMAND}`; do not edit. -->"
PAGES = {"flags.md": flags_page, "api.md": api_page, **methods_page.pages()}
# Pages with the table of all methods, below the repository's root, and the way from them to it.
TABLED = {"README.md": "", "docs/index.md": "../"}
BENCHMARKS = "benchmarks"

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
            path.parent.mkdir(exist_ok=True)
            write_own(path, lambda file, text=text: file.write(text.encode()))
            print(f"written: {path}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path} does not fit the code; run: {COMMAND}", file=sys.stderr)
            status = 1
    return status


def fill_tables(root: Path, check: bool) -> int:
    """Writes the table of all methods into its pages, or compares; returns the exit status.

    Raises:
      UserError: a page lacks the marks of the table, or a stored benchmark is none.
    """
    status = 0
    for name, way in TABLED.items():
        path = root / name
        page = path.read_text(encoding="utf-8")
        text = headline.filled(page, root / BENCHMARKS, way, name)
        if text == page:
            continue
        if check:
            print(f"{path}: its table does not fit the files; run: {COMMAND}", file=sys.stderr)
            status = 1
        else:
            write_atomically(path, lambda file, text=text: file.write(text.encode()))
            print(f"written: {path}")
    return status


def main() -> int:
    """The program."""
    try:
        status = write_pages(Path(_OUT.value), _CHECK.value)
        if flags.FLAGS["out"].using_default_value:  # elsewhere lie the pages alone
            status |= fill_tables(Path(), _CHECK.value)
        return status
    except BrokenPipeError:  # nobody reads what is said
        raise
    except OSError as error:
        raise UserError(f"--out={_OUT.value}: cannot be written ({error.strerror})") from None
