"""Fits one method on good parts and evaluates it: from images to the table's row.

    python -m experiments.run --method=padim --dataset=mvtec_ad --data_dir=DIR \\
        --category=screw --backbone=resnet18 --weights=FILE --workdir=RUN
    python -m experiments.run --method=patchcore --preset=cpu --dataset=folder \\
        --data_dir=GOOD_PARTS --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

The second one is all that a detector of your own parts needs; experiments.predict then judges new
images. Every field of the method's configuration is a flag, too: docs/flags.md lists what each
means and what each preset sets. --list shows what there is.
"""

import json
from functools import partial
from pathlib import Path

from absl import flags

from experiments import (
    cell,
    checks,
    devices,
    memory,
    program,
    record,
    settings,
    shared_flags,
    time_limit,
)
from experiments.shared_flags import (
    CHECKPOINT_EVERY,
    DATA_DIR,
    DATASET,
    RESULTS_DIR,
    SAVE_HEATMAPS,
    SAVE_PREDICTIONS,
    WEIGHTS,
    WORKDIR,
)
from imvad_jax import backbones, methods
from imvad_jax.data import layouts
from imvad_jax.errors import UserError
from imvad_jax.evaluation.calibration import check_quantile
from imvad_jax.owned import CATEGORIES, check_directory
from imvad_jax.reporting import report
from imvad_jax.reporting.table import format_table
from imvad_jax.training import hosts
from imvad_jax.training.limit import Stopped
from imvad_jax.training.timing import Timings

HOLDOUT_OF_FOLDERS = 0.2

_METHOD = flags.DEFINE_string(
    "method", None, f"One of {', '.join(methods.METHODS)}; or package.module:Class of a package of "
    "your own (docs/extending.md).",
)  # fmt: skip
_PRESET = flags.DEFINE_string(
    "preset", "official", "Named configuration: official (of the paper), benchmark, cpu (fits two "
    "cores), demo, smoke (tests).",
)  # fmt: skip
_CATEGORY = flags.DEFINE_list(
    "category", "all", "Categories, separated by commas, or all; of several, each gets a folder in "
    "--workdir.",
)  # fmt: skip
_CHECKPOINT = program.define_path(
    "checkpoint", None, "Directory of a finished run (of one category) whose fitted detector is "
    "evaluated here; nothing is fitted.",
)  # fmt: skip
_SEED = flags.DEFINE_integer("seed", 0, "Seeds every random draw.", lower_bound=0)
_HOLDOUT = flags.DEFINE_float(
    "holdout", None, "Share of the good images that is not fitted on: the threshold of the verdict "
    f"is found from them. Default: {HOLDOUT_OF_FOLDERS} with --dataset=folder, else 0 (no "
    "threshold).",
)  # fmt: skip
_THRESHOLD_QUANTILE = flags.DEFINE_float(
    "threshold_quantile", 0.95, "The threshold is this quantile of the scores of the good images "
    "held out: 1 minus the share of good parts that may be flagged.",
)  # fmt: skip
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be done and needed; write nothing.")
_LIST = flags.DEFINE_bool("list", False, "List methods, backbones and datasets.")
_FULL_RESOLUTION = flags.DEFINE_bool(
    "full_resolution_metrics", False, "Evaluate the maps at the original size of the masks."
)
_BENCHMARK_PRO = flags.DEFINE_bool(
    "benchmark_pro", False, "Add the benchmark's 100-threshold PRO as pixel_pro_100."
)
_KEEP_CHECKPOINTS = flags.DEFINE_integer(
    "keep_checkpoints", 2, "How many checkpoints of a training are kept.", lower_bound=1
)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write scalars for TensorBoard, too.")
flags.adopt_module_key_flags(settings)  # --help shows them, too
flags.adopt_module_key_flags(shared_flags)
flags.adopt_module_key_flags(devices)
flags.adopt_module_key_flags(time_limit)


def list_everything() -> None:
    """Prints the registries."""
    print("methods:")
    for name, method in methods.METHODS.items():
        print(f"  {name:12} {method.title}; presets: {', '.join(settings.presets(name))}")
    print("backbones:")
    for name, spec in backbones.BACKBONES.items():
        print(f"  {name:18} weights: hub:{spec.hub}@main")
    print("datasets:")
    for name, layout in layouts.LAYOUTS.items():
        print(f"  {name:12} {layout.expected}")


def _find_holdout() -> float:
    """The share of good images to hold out. Raises UserError where it makes no sense."""
    share = _HOLDOUT.value
    if _CHECKPOINT.value:
        if share:
            raise UserError("--holdout: with --checkpoint nothing is fitted; leave it out")
        return 0.0
    if share is None:
        share = HOLDOUT_OF_FOLDERS if DATASET.value == "folder" else 0.0
    if not 0 <= share < 1:
        raise UserError(f"--holdout={share}: expected a share from 0 to below 1")
    check_quantile(_THRESHOLD_QUANTILE.value)
    if share and RESULTS_DIR.value:
        raise UserError(
            "--results_dir: its tables hold detectors fitted on all good images; add --holdout=0"
        )
    return share


def say_what_is_needed(plan: cell.Plan, data, parallel, say) -> None:
    """What --dry_run prints of a cell. Raises UserError where the run would."""
    checks.check_images(data)
    checks.check_pictures(plan.config)
    parts = memory.estimate(plan.detector, data, parallel)
    say(json.dumps(record.make_record(plan, data, parallel)["config"], indent=1))
    say(memory.check(parts, memory.available_bytes(parallel.local[0])))


def main() -> int:
    """The program."""
    if _LIST.value:
        list_everything()
        return 0
    if not _METHOD.value:
        raise UserError(f"--method is missing; one of {', '.join(sorted(methods.METHODS))}")
    overrides = settings.config_overrides()
    config = settings.resolve(_METHOD.value, _PRESET.value, overrides)
    categories = shared_flags.find_categories(_CATEGORY.value)
    if not WORKDIR.value and not _DRY_RUN.value:
        raise UserError("--workdir is missing: name the directory that the run writes to")
    if RESULTS_DIR.value and _FULL_RESOLUTION.value:
        raise UserError(
            "--results_dir: its tables hold figures at the size that the method sees; leave it "
            "out with --full_resolution_metrics"
        )
    holdout, tiling = _find_holdout(), shared_flags.find_tiling()
    reading = shared_flags.find_reading()
    limit = time_limit.start_limit()
    plans = {
        category: cell.Plan(
            _METHOD.value, _PRESET.value, overrides, config, _SEED.value, WEIGHTS.value,
            program.command("run"),
            Path(_CHECKPOINT.value) if _CHECKPOINT.value else None, holdout, tiling, reading,
        )
        for category in categories
    }  # fmt: skip
    run_dirs = {}
    if not _DRY_RUN.value:
        top = Path(WORKDIR.value)
        run_dirs = {name: top / name if len(categories) > 1 else top for name in categories}
        if len(categories) > 1:
            check_directory(top, CATEGORIES)
        for category, run_dir in run_dirs.items():
            checks.check_before(
                plans[category], DATASET.value, category, run_dir, RESULTS_DIR.value
            )
    parallel = devices.start_jax()
    say = partial(print, flush=True) if hosts.is_first() else lambda text: None
    options = cell.Options(
        SAVE_PREDICTIONS.value, SAVE_HEATMAPS.value, _FULL_RESOLUTION.value, _BENCHMARK_PRO.value,
        CHECKPOINT_EVERY.value, _KEEP_CHECKPOINTS.value, _TENSORBOARD.value,
        _THRESHOLD_QUANTILE.value, RESULTS_DIR.value,
    )  # fmt: skip
    rows, stopped = {}, None
    for category, plan in plans.items():
        say(f"== {methods.get(plan.method).title}, {DATASET.value}/{category}")
        timings = Timings()
        try:
            data = cell.open_data(
                plan, DATASET.value, DATA_DIR.value, category,
                devices.decoded_dir(), timings, say, limit,
            )  # fmt: skip
            if _DRY_RUN.value:
                say_what_is_needed(plan, data, parallel, say)
                continue
            result = cell.run_cell(
                plan, data, run_dirs[category], parallel, options, timings, say, limit
            )
        except Stopped as stop:
            stopped = stop
            break
        if result is None or not result["metrics"]:  # another host's, or there was no test image
            continue
        rows[category] = result["metrics"]
    if rows:
        print(format_table(rows))
        if len(categories) > 1:
            report.write_index(Path(WORKDIR.value), rows)
        print(f"written to {WORKDIR.value}; open "
              f"{'index.html' if len(categories) > 1 else 'report.html'} there")  # fmt: skip
    if stopped:
        raise stopped
    return 0


if __name__ == "__main__":
    program.run(main, settings.define_outside_flags)
