"""Compares the forms of convolution that `ops.convolution` chooses between on a CPU:
imvad tune_convolution

Prints one row per shape and direction: the rate of XLA's form and of ours, both counted as direct
convolutions, and the form that the rule picks. With --check the exit status is 1 if the rule picks
a form that is much slower on this CPU, in two measurements of it. Measure on an idle machine.
"""

import json
import sys
from pathlib import Path

import jax
from absl import flags

from imvad_jax.benchmarks import convolutions
from imvad_jax.errors import UserError
from imvad_jax.files import write_atomically
from imvad_jax.programs import program
from imvad_jax.training.parallel import Parallel

flags.DEFINE_bool("check", False, "Exit with status 1 if the rule picks a much slower form.")
flags.DEFINE_float("tolerance", 0.3, "With --check: fraction of the faster rate that may be lost.")
program.define_path("out", "", "New JSON file to which the figures are also written.")


def main() -> int:
    """The program."""
    out = Path(flags.FLAGS.out) if flags.FLAGS.out else None
    if out is not None and out.exists():
        raise UserError(f"--out={out}: exists; expected a new file")
    parallel = Parallel()
    if parallel.local[0].platform != "cpu":
        raise UserError(
            f"JAX computes on {jax.default_backend()} here, where XLA's own convolutions serve; "
            "expected a processor (JAX_PLATFORMS=cpu)"
        )
    found = []
    for shape in convolutions.SHAPES:
        found += convolutions.measure_shape(shape, parallel)
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if flags.FLAGS.check:
        found = convolutions.measured_again(found, flags.FLAGS.tolerance, parallel)
    print(convolutions.table(found))
    if out is not None:
        text = json.dumps([row._asdict() for row in found], indent=1) + "\n"
        write_atomically(out, lambda file: file.write(text.encode()))
    slow = convolutions.slower(found, flags.FLAGS.tolerance)
    for line in slow:
        print(line, file=sys.stderr)
    return int(flags.FLAGS.check and bool(slow))
