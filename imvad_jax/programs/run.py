"""Fits one method on good parts and evaluates it: from images to the table's row.

    python -m experiments.run --method=padim --dataset=mvtec_ad --data_dir=DIR \\
        --category=screw --backbone=resnet18 --weights=FILE --workdir=RUN
    python -m experiments.run --method=patchcore --preset=cpu --dataset=folder \\
        --data_dir=GOOD_PARTS --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

The second one is all that a detector of your own parts needs; experiments.predict then judges new
images. Every field of the method's configuration is a flag, too: docs/flags.md lists what each
means and what each preset sets. --list shows what there is.
"""

import dataclasses
import json
from functools import partial
from pathlib import Path

from absl import flags

from imvad_jax import backbones, methods, presets
from imvad_jax.commands import command
from imvad_jax.data import layouts
from imvad_jax.errors import UserError
from imvad_jax.evaluation.calibration import check_quantile
from imvad_jax.owned import CATEGORIES, check_directory
from imvad_jax.programs import config_flags, devices, program, shared_flags, time_limit
from imvad_jax.programs.shared_flags import (
    CHECKPOINT_EVERY,
    DATA_DIR,
    DATASET,
    RESULTS_DIR,
    SAVE_HEATMAPS,
    SAVE_PREDICTIONS,
    WEIGHTS,
    WORKDIR,
)
from imvad_jax.reporting import report
from imvad_jax.reporting.table import format_table
from imvad_jax.runs import cell, checks, memory
from imvad_jax.runs.specs import Cell, Options, Work
from imvad_jax.training import hosts
from imvad_jax.training.limit import Stopped

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
flags.adopt_module_key_flags(config_flags)  # --help shows them, too
flags.adopt_module_key_flags(shared_flags)
flags.adopt_module_key_flags(devices)
flags.adopt_module_key_flags(time_limit)


def list_everything() -> None:
    """Prints the registries."""
    print("methods:")
    for name, method in methods.METHODS.items():
        print(f"  {name:12} {method.title}; presets: {', '.join(presets.of(name))}")
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


def _say_what_is_needed(asked: Cell, work: Work) -> None:
    """What --dry_run prints of a cell. Raises UserError where the run would."""
    data = cell.open_data(asked, work)
    checks.check_images(data)
    checks.check_pictures(asked.config)
    parts = memory.estimate(asked.detector, data, work.parallel)
    work.say(json.dumps(dataclasses.asdict(asked.config), indent=1))
    work.say(memory.check(parts, memory.available_bytes(work.parallel.local[0])))


def find_cells() -> list[Cell]:
    """What the flags ask for, a cell a category.

    Raises:
      UserError: flags that are missing, wrong, or do not go together.
    """
    if not _METHOD.value:
        raise UserError(f"--method is missing; one of {', '.join(sorted(methods.METHODS))}")
    overrides = config_flags.config_overrides()
    config = presets.resolve(_METHOD.value, _PRESET.value, overrides)
    categories = shared_flags.find_categories(_CATEGORY.value)
    if not WORKDIR.value and not _DRY_RUN.value:
        raise UserError("--workdir is missing: name the directory that the run writes to")
    if RESULTS_DIR.value and _FULL_RESOLUTION.value:
        raise UserError(
            "--results_dir: its tables hold figures at the size that the method sees; leave it "
            "out with --full_resolution_metrics"
        )
    top = Path(WORKDIR.value or ".")
    given = {
        "method": _METHOD.value, "preset": _PRESET.value, "overrides": overrides, "config": config,
        "dataset": DATASET.value, "data_dir": DATA_DIR.value, "decoded_dir": devices.decoded_dir(),
        "weights": WEIGHTS.value, "seed": _SEED.value, "holdout": _find_holdout(),
        "checkpoint": Path(_CHECKPOINT.value) if _CHECKPOINT.value else None,
        "tiling": shared_flags.find_tiling(), "reading": shared_flags.find_reading(),
        "options": Options(
            save_predictions=SAVE_PREDICTIONS.value, save_heatmaps=SAVE_HEATMAPS.value,
            full_resolution_metrics=_FULL_RESOLUTION.value, benchmark_pro=_BENCHMARK_PRO.value,
            checkpoint_every=CHECKPOINT_EVERY.value, keep_checkpoints=_KEEP_CHECKPOINTS.value,
            tensorboard=_TENSORBOARD.value, threshold_quantile=_THRESHOLD_QUANTILE.value,
            results_dir=RESULTS_DIR.value,
        ),
        "command": command("run"),
    }  # fmt: skip
    return [
        Cell(category=name, run_dir=top / name if len(categories) > 1 else top, **given)
        for name in categories
    ]


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    if _LIST.value:
        list_everything()
        return 0
    cells = find_cells()
    limit = time_limit.start_limit()
    if not _DRY_RUN.value:
        if len(cells) > 1:
            check_directory(WORKDIR.value, CATEGORIES)
        for asked in cells:
            checks.check_before(asked)
    parallel = devices.start_jax()
    say = partial(print, flush=True) if hosts.is_first() else lambda text: None
    rows, stopped = {}, None
    for asked in cells:
        say(f"== {asked.title}, {asked.dataset}/{asked.category}")
        work = Work(parallel=parallel, say=say, limit=limit)
        try:
            if _DRY_RUN.value:
                _say_what_is_needed(asked, work)
                continue
            result = cell.run_cell(asked, work)
        except Stopped as stop:
            stopped = stop
            break
        if result is None or not result["metrics"]:  # another host's, or there was no test image
            continue
        rows[asked.category] = result["metrics"]
    if rows:
        print(format_table(rows))
        if len(cells) > 1:
            report.write_index(Path(WORKDIR.value), rows)
        print(f"written to {WORKDIR.value}; open "
              f"{'index.html' if len(cells) > 1 else 'report.html'} there")  # fmt: skip
    if stopped:
        raise stopped
    return 0
