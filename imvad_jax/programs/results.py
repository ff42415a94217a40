"""Writes RESULTS.md from the result files: python -m experiments.results

With --check nothing is written; the status is 1 if the page does not fit the files.
"""

import sys
from pathlib import Path

from absl import flags

from imvad_jax.errors import UserError
from imvad_jax.owned import write_own
from imvad_jax.programs import program
from imvad_jax.reporting.results import COMMAND, render_results

program.define_path("results_dir", "results", "Directory of the result files.")
program.define_path("out", "RESULTS.md", "Page to write.")
flags.DEFINE_bool("check", False, "Only compare the page with the files; status 1 if it differs.")


def main() -> int:
    """The program."""
    out = Path(flags.FLAGS.out)
    text = render_results(flags.FLAGS.results_dir)
    if flags.FLAGS.check:
        if out.is_file() and out.read_text(encoding="utf-8") == text:
            return 0
        state = "differs from" if out.is_file() else "is missing; it is made from"
        print(f"{out} {state} the files in {flags.FLAGS.results_dir}; run: {COMMAND}",
              file=sys.stderr)  # fmt: skip
        return 1
    try:
        out.parent.stat()  # none is made
        write_own(out, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"--out: cannot write {out} ({error.strerror})") from None
    print(f"written: {out}")
    return 0
