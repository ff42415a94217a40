"""Makes the whole table: every method on every category, beside the published figures.

    python -m experiments.table --methods=all --dataset=mvtec_ad --categories=all \\
        --data_dir=DIR --weights=hub --preset=cpu --workdir=DIR --compare

Cells that are finished are not run again: the same command goes on after a kill. Every field of a
method's configuration is a flag, too, and holds for the methods that have it. The table lies in
the work directory as table.html, table.md, table.csv and table.json. The status is 1 if a cell
failed.
"""

import sys
from functools import partial

from absl import flags

from imvad_jax.errors import UserError
from imvad_jax.programs import config_flags, devices, shared_flags, time_limit
from imvad_jax.programs.shared_flags import (
    DATA_DIR,
    DATASET,
    PRESET,
    RESULTS_DIR,
    WEIGHTS,
    WORKDIR,
)
from imvad_jax.reporting.grid_text import averages
from imvad_jax.runs.plan import BUDGETS, TableRequest, plan
from imvad_jax.runs.specs import Options
from imvad_jax.runs.table import Making, make_table

_METHODS = flags.DEFINE_list(
    "methods", "all", "Methods, separated by commas, or all; package.module:Class for those of a "
    "package of your own.",
)  # fmt: skip
_CATEGORIES = flags.DEFINE_list("categories", "all", "Categories, separated by commas, or all.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds, from 0 on.", lower_bound=1)
_BUDGET = flags.DEFINE_enum(
    "budget", None, list(BUDGETS), "What --preset was called before (short is smoke); taken for "
    "one more release.",
)  # fmt: skip
_SHARD = flags.DEFINE_string(
    "shard", None, "i/n: run the i-th of n parts of the cells, i from 1. Give every host the same "
    "flags but this one, and a --workdir that all of them see.",
)  # fmt: skip
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Add published rows and differences to the table's files."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 0, "Processes that make cells side by side; 0: one for each accelerator, or one.",
    lower_bound=0,
)  # fmt: skip
_ISOLATE = flags.DEFINE_bool(
    "isolate", True, "Make cells in a process of their own, so that one that is killed does not "
    "end the rest; its output goes to logs/ in the work directory. False: in this one.",
)  # fmt: skip
for module in (config_flags, shared_flags, devices, time_limit):
    flags.adopt_module_key_flags(module)  # --help shows them, too


def find_preset() -> str:
    """The preset, also by its earlier name. Raises UserError where both are given."""
    if _BUDGET.value is None:
        return PRESET.value
    preset = BUDGETS[_BUDGET.value]
    if flags.FLAGS["preset"].present:
        raise UserError(f"--budget={_BUDGET.value}: is --preset={preset} now; leave it out")
    print(f"note: --budget={_BUDGET.value} is --preset={preset} now", flush=True)
    return preset


def find_request() -> TableRequest:
    """What the flags ask for. Raises UserError where one is missing or makes no sense."""
    if not WORKDIR.value:
        raise UserError("--workdir is missing: name the directory that the table is made in")
    if flags.FLAGS.num_processes != 1:
        raise UserError("--num_processes: a table is spread over hosts by --shard=i/n")
    return TableRequest(
        workdir=WORKDIR.value, methods=_METHODS.value, preset=find_preset(),
        overrides=config_flags.config_overrides(), seeds=_SEEDS.value, dataset=DATASET.value,
        categories=shared_flags.find_categories(_CATEGORIES.value), data_dir=DATA_DIR.value,
        decoded_dir=devices.decoded_dir(), weights=WEIGHTS.value,
        tiling=shared_flags.find_tiling(), reading=shared_flags.find_reading(),
        options=Options(
            save_predictions=shared_flags.SAVE_PREDICTIONS.value,
            save_heatmaps=shared_flags.SAVE_HEATMAPS.value,
            checkpoint_every=shared_flags.CHECKPOINT_EVERY.value, results_dir=RESULTS_DIR.value,
            training_loop=shared_flags.TRAINING_LOOP.value,
            brightness_matched=shared_flags.BRIGHTNESS_MATCHED.value,
        ),
    )  # fmt: skip


def worker_command() -> list[str]:
    """The command line of a worker process."""
    given = {"cache_dir": flags.FLAGS.cache_dir, "num_devices": flags.FLAGS.num_devices}
    chosen = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return [sys.executable, "-m", "imvad_jax.programs.entry", "worker", *chosen]


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    limit = time_limit.start_limit()
    how = Making(
        start=devices.start_jax, worker=worker_command() if _ISOLATE.value else (),
        processes=_PROCESSES.value, num_devices=flags.FLAGS.num_devices, shard=_SHARD.value or "",
        compare=_COMPARE.value, limit=limit, log=partial(print, flush=True),
    )  # fmt: skip
    made = make_table(plan(find_request()), how)
    print(averages(made.grid))
    for cell in made.failed:
        print(f"failed: {cell.name}: {cell.error}", file=sys.stderr)
    print(f"written to {WORKDIR.value}: table.html, table.md, table.csv, table.json")
    if made.stopped:
        raise limit.stop(f"{len(made.stopped)} cells are not finished; the same command goes on")
    return 1 if made.failed else 0
