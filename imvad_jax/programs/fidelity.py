"""Writes the tables of docs/fidelity.md from what the golden tests compared:
python -m experiments.fidelity

A run of all golden tests writes the record; it needs the golden files:
IMVAD_FIDELITY_FILE=docs/fidelity.json python -m pytest tests/golden
With --check nothing is written; the exit status is 1 if the page is out of date.
"""

import sys
from pathlib import Path

from absl import flags

from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically
from imvad_jax.reporting.fidelity import COMMAND, filled_page, load_record

flags.DEFINE_string("record", "docs/fidelity.json", "Record written by the golden tests.")
flags.DEFINE_string("page", "docs/fidelity.md", "Page whose tables are updated.")
flags.DEFINE_bool("check", False, "Write nothing; exit with status 1 if the page is out of date.")


def main() -> int:
    """The program."""
    record, path = load_record(Path(flags.FLAGS.record)), Path(flags.FLAGS.page)
    try:
        page = path.read_text(encoding="utf-8")
        text = filled_page(page, record)
        if text == page:
            return 0
        if flags.FLAGS.check:
            print(f"{path} does not fit {flags.FLAGS.record}; run: {COMMAND}", file=sys.stderr)
            return 1
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"--page={path}: {error.strerror}") from None
    print(f"written: {path}")
    return 0
