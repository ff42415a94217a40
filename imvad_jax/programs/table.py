"""Evaluates many methods on many categories and tabulates them beside the published figures.

    imvad table --methods=all --dataset=mvtec_ad --categories=all \\
        --data_dir=DIR --weights=hub --preset=cpu --workdir=DIR --compare

Finished cells are not run again, so the same command resumes an interrupted table. Every field of a
method's configuration is also a flag, which applies to the methods that have the field. The table
is written to the work directory as table.html, table.md, table.csv and table.json. The exit status
is 1 if a cell failed.
"""

import json
from pathlib import Path

from absl import flags

from imvad_jax.commands import process
from imvad_jax.errors import UserError, say
from imvad_jax.programs import config_flags, devices, output, shared_flags, time_limit
from imvad_jax.programs.shared_flags import (
    DATA_DIR,
    DATASET,
    PRESET,
    RESULTS_DIR,
    WEIGHTS,
    WORKDIR,
)
from imvad_jax.reporting.grid_text import as_json, averages
from imvad_jax.runs.plan import BUDGETS, TableRequest, plan
from imvad_jax.runs.specs import Options
from imvad_jax.runs.table import Making, make_table

_METHODS = flags.DEFINE_list(
    "methods", "all", "Comma-separated methods, or all; package.module:Class for methods of your "
    "own package.",
)  # fmt: skip
_CATEGORIES = flags.DEFINE_list("categories", "all", "Comma-separated categories, or all.")
_SEEDS = flags.DEFINE_integer(
    "seeds", 1, "Number of seeds; each cell is run with seeds 0, 1, ...", lower_bound=1
)
_BUDGET = flags.DEFINE_enum(
    "budget", None, list(BUDGETS), "Former name of --preset (short is now smoke), to be removed in "
    "the next release.",
)  # fmt: skip
_SHARD = flags.DEFINE_string(
    "shard", None, "i/n runs the i-th of n shards of the cells, counting from 1. Give every host "
    "the same flags except this one, and a --workdir that all of them can access.",
)  # fmt: skip
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Add the published figures, and the differences to them, to the table."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 0, "Number of worker processes; 0 means one per accelerator, or one on the CPU.",
    lower_bound=0,
)  # fmt: skip
_ISOLATE = flags.DEFINE_bool(
    "isolate", True, "Run cells in worker processes, so that a crash does not end the table; their "
    "output goes to logs/ in the work directory. If false, cells run in this process.",
)  # fmt: skip
FIRST = (
    "methods", "preset", "dataset", "data_dir", "categories", "seeds", "weights", "workdir",
    "compare", "time_limit", "json",
)  # fmt: skip
for module in (config_flags, shared_flags, devices, time_limit, output):
    flags.adopt_module_key_flags(module)  # --help shows them, too


def find_preset() -> str:
    """The preset, also by its earlier name. Raises UserError where both are given."""
    if _BUDGET.value is None:
        return PRESET.value
    preset = BUDGETS[_BUDGET.value]
    if flags.FLAGS["preset"].present:
        raise UserError(f"--budget={_BUDGET.value}: is now --preset={preset}; omit --budget")
    say(f"note: --budget={_BUDGET.value} is now --preset={preset}")
    return preset


def find_request() -> TableRequest:
    """What the flags ask for. Raises UserError where one is missing or makes no sense."""
    if not WORKDIR.value:
        raise UserError("--workdir is missing: name the directory of the table")
    if flags.FLAGS.num_processes != 1:
        raise UserError("--num_processes: use --shard=i/n to spread a table over hosts")
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
    return process("worker", *chosen)


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    limit = time_limit.start_limit()
    how = Making(
        start=devices.start_jax, worker=worker_command() if _ISOLATE.value else (),
        processes=_PROCESSES.value, num_devices=flags.FLAGS.num_devices, shard=_SHARD.value or "",
        compare=_COMPARE.value, limit=limit, log=say,
    )  # fmt: skip
    made = make_table(plan(find_request()), how)
    for cell in made.failed:
        say(f"failed: {cell.name}: {cell.error}")
    output.result(
        f"{averages(made.grid)}\n"
        f"written to {WORKDIR.value}: table.html, table.md, table.csv, table.json",
        {"workdir": WORKDIR.value, "page": str(Path(WORKDIR.value, "table.html"))}
        | json.loads(as_json(made.grid)),
    )
    if made.stopped:
        raise limit.stop(f"{len(made.stopped)} cells are not finished; the same command goes on")
    return 1 if made.failed else 0
