"""Writes RESULTS.md from the result files: python -m experiments.results

And imvad_jax/presets/reached.json, by which each preset names the figures that it reached. With
--check nothing is written; the status is 1 if one of them does not fit the files.
"""

import sys
from pathlib import Path

from absl import flags

from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically
from imvad_jax.owned import write_own
from imvad_jax.programs import program
from imvad_jax.reporting.reached import PATH as REACHED
from imvad_jax.reporting.reached import reached_text
from imvad_jax.reporting.results import COMMAND, render_results

program.define_path("results_dir", "results", "Directory of the result files.")
program.define_path("out", "RESULTS.md", "Page to write.")
flags.DEFINE_bool("check", False, "Only compare both with the files; status 1 if one differs.")


def main() -> int:
    """The program."""
    given, differing = flags.FLAGS.results_dir, 0
    texts = {Path(flags.FLAGS.out): render_results(given)}
    if flags.FLAGS["results_dir"].using_default_value:  # others are not the presets' own
        texts[REACHED] = reached_text(given)
    for path, text in texts.items():
        if flags.FLAGS.check:
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            state = "differs from" if path.is_file() else "is missing; it is made from"
            print(f"{path.name} {state} the files in {given}; run: {COMMAND}", file=sys.stderr)
            differing = 1
            continue
        try:
            path.parent.stat()  # none is made
            write = write_atomically if path is REACHED else write_own
            write(path, lambda file, text=text: file.write(text.encode()))
        except OSError as error:
            raise UserError(f"--out: cannot write {path} ({error.strerror})") from None
        print(f"written: {path.name}")
    return differing
