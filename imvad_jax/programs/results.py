"""Writes RESULTS.md from the result files: python -m experiments.results

With --check nothing is written; the status is 1 if the page does not fit the files.
"""

from pathlib import Path

from absl import flags

from imvad_jax.programs import page, program
from imvad_jax.reporting.results import COMMAND, render_results

program.define_path("results_dir", "results", "Directory of the result files.")
program.define_path("out", "RESULTS.md", "Page to write.")
flags.DEFINE_bool("check", False, "Only compare the page with the files; status 1 if it differs.")


def main() -> int:
    """The program."""
    out, directory = Path(flags.FLAGS.out), flags.FLAGS.results_dir
    state = "differs from" if out.is_file() else "is missing; it is made from"
    stale = f"{out} {state} the files in {directory}; run: {COMMAND}"
    return page.write_or_check(out, render_results(directory), check=flags.FLAGS.check, stale=stale)
