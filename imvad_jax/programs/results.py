"""Writes RESULTS.md from the result files: imvad results

If the files are those of the repository, it also writes imvad_jax/presets/reached.json, which lists
the figures that each preset reached. With --check nothing is written; the exit status is 1 if
either is out of date.
"""

from pathlib import Path

from absl import flags

from imvad_jax.programs import output, page, program
from imvad_jax.reporting import reached
from imvad_jax.reporting.results import COMMAND, render_results

program.define_path("results_dir", "results", "Directory of the result files.")
program.define_path("out", "RESULTS.md", "Page to write.")
flags.DEFINE_bool("check", False, "Write nothing; exit with status 1 if either is out of date.")
flags.adopt_module_key_flags(output)


def main() -> int:
    """The program."""
    out, directory = Path(flags.FLAGS.out), flags.FLAGS.results_dir
    texts = {out: render_results(directory)}
    if flags.FLAGS["results_dir"].using_default_value:  # other results are not the presets' own
        texts[reached.PATH] = reached.render(directory)
    check, done = flags.FLAGS.check, {}
    for path, text in texts.items():
        state = "differs from" if path.is_file() else "is missing; it is made from"
        stale = f"{path.name} {state} the files in {directory}; run: {COMMAND}"
        done[path] = page.write_or_check(path, text, check=check, stale=stale)
    output.result(*page.said(done, check))
    return max(done.values())
