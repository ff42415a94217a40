"""Fits one method on good parts and evaluates it: from images to the table's row.

    python -m experiments.run --method=padim --dataset=mvtec_ad --data_dir=DIR \\
        --category=screw --backbone=resnet18 --weights=FILE --workdir=RUN

Every field of the method's configuration is a flag, too. --list shows what there is.
"""

import json
import sys
from functools import partial
from pathlib import Path

from absl import flags

from experiments import cell, devices, memory, program, record, settings
from imvad_jax import backbones, methods
from imvad_jax.data import layouts
from imvad_jax.data.category import cached_categories, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError, choose
from imvad_jax.evaluation.calibration import check_quantile
from imvad_jax.reporting import report
from imvad_jax.reporting.progress import track, untracked
from imvad_jax.reporting.results import result_path
from imvad_jax.reporting.table import format_table
from imvad_jax.training import hosts
from imvad_jax.training.timing import Timings

HOLDOUT_OF_FOLDERS = 0.2

_METHOD = flags.DEFINE_string("method", None, "Name of the method.")
_PRESET = flags.DEFINE_string("preset", "official", "Named configuration: official, benchmark, ...")
_DATASET = flags.DEFINE_string(
    "dataset", "mvtec_ad", f"Which dataset --data_dir holds: {', '.join(layouts.LAYOUTS)}."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory of the dataset. Left out: the decoded cache is used alone."
)
_CATEGORY = flags.DEFINE_list("category", "all", "Categories, separated by commas, or all.")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Pretrained weights: a file (.safetensors, .npz, .pth), "
    "hub:OWNER/NAME@REVISION, package:NAME, or random (for tests).",
)  # fmt: skip
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Directory of the run; with several categories each gets a folder in it."
)
_CHECKPOINT = flags.DEFINE_string(
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
_SAVE_PREDICTIONS = flags.DEFINE_bool(
    "save_predictions", True, "Write predictions.npz and the report made from it."
)
_SAVE_HEATMAPS = flags.DEFINE_bool("save_heatmaps", True, "Write a heat map for each test image.")
_FULL_RESOLUTION = flags.DEFINE_bool(
    "full_resolution_metrics", False, "Evaluate the maps at the original size of the masks."
)
_BENCHMARK_PRO = flags.DEFINE_bool(
    "benchmark_pro", False, "Add the benchmark's 100-threshold PRO as pixel_pro_100."
)
_RESULTS_DIR = flags.DEFINE_string(
    "results_dir", "", "Also write each cell's small result file here (see experiments.results)."
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
    "checkpoint_every", 0, "Epochs between two checkpoints of a training; 0: about twenty in all.",
    lower_bound=0,
)  # fmt: skip
_KEEP_CHECKPOINTS = flags.DEFINE_integer(
    "keep_checkpoints", 2, "How many checkpoints of a training are kept.", lower_bound=1
)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write scalars for TensorBoard, too.")
settings.define_config_flags()
flags.adopt_module_key_flags(settings)  # --help shows them, too
flags.adopt_module_key_flags(devices)


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


def find_categories(dataset: str) -> list[str]:
    """The categories that the flags name."""
    layout = layouts.get(dataset)
    if _DATA_DIR.value:
        return layouts.select_categories(layout, _DATA_DIR.value, _CATEGORY.value)
    found = cached_categories(_decoded_dir(), dataset)
    if not found:
        layouts.base.require_directory("")  # says what is missing
    wanted = found if _CATEGORY.value in ([], ["all"]) else _CATEGORY.value
    return [choose("--category (in the cache)", name, found) for name in wanted]


def _find_holdout() -> float:
    """The share of good images to hold out. Raises UserError where it makes no sense."""
    share = _HOLDOUT.value
    if _CHECKPOINT.value:
        if share:
            raise UserError("--holdout: with --checkpoint nothing is fitted; leave it out")
        return 0.0
    if share is None:
        share = HOLDOUT_OF_FOLDERS if _DATASET.value == "folder" else 0.0
    if not 0 <= share < 1:
        raise UserError(f"--holdout={share}: expected a share from 0 to below 1")
    check_quantile(_THRESHOLD_QUANTILE.value)
    if share and _RESULTS_DIR.value:
        raise UserError(
            "--results_dir: its tables hold detectors fitted on all good images; add --holdout=0"
        )
    return share


def _decoded_dir() -> str | None:
    return str(devices.cache_dir() / "decoded") if devices.cache_dir() else None


def main() -> int:
    """The program."""
    if _LIST.value:
        list_everything()
        return 0
    if not _METHOD.value:
        raise UserError(f"--method is missing; one of {', '.join(sorted(methods.METHODS))}")
    overrides = settings.config_overrides()
    config = settings.resolve(_METHOD.value, _PRESET.value, overrides)
    geometry = Geometry(config.image_size, config.input_size)
    categories = find_categories(_DATASET.value)
    if not _WORKDIR.value and not _DRY_RUN.value:
        raise UserError("--workdir is missing: name the directory that the run writes to")
    if _RESULTS_DIR.value and _FULL_RESOLUTION.value:
        raise UserError(
            "--results_dir: its tables hold figures at the size that the method sees; leave it "
            "out with --full_resolution_metrics"
        )
    holdout = _find_holdout()
    parallel = devices.start_jax()
    say = partial(print, flush=True) if hosts.is_first() else lambda text: None
    options = cell.Options(
        _SAVE_PREDICTIONS.value, _SAVE_HEATMAPS.value, _FULL_RESOLUTION.value, _BENCHMARK_PRO.value,
        _CHECKPOINT_EVERY.value, _KEEP_CHECKPOINTS.value, _TENSORBOARD.value,
        _THRESHOLD_QUANTILE.value,
    )  # fmt: skip
    rows = {}
    for category in categories:
        plan = cell.Plan(
            _METHOD.value, _PRESET.value, overrides, config, _SEED.value, _WEIGHTS.value,
            "python -m experiments.run " + " ".join(sys.argv[1:]),
            Path(_CHECKPOINT.value) if _CHECKPOINT.value else None, holdout,
        )  # fmt: skip
        say(f"== {methods.get(plan.method).title}, {_DATASET.value}/{category}")
        timings = Timings()
        with timings.stage("decode"):
            data = open_category(
                _DATASET.value, _DATA_DIR.value, category, geometry, _decoded_dir(),
                _SEED.value, progress=track if hosts.is_first() else untracked,
            )  # fmt: skip
        data = data.hold_out(holdout, _SEED.value)
        apart = f", {len(data.held_out)} to find the threshold" if data.held_out else ""
        say(f"{len(data.train)} good images to fit on{apart}, {len(data.test)} to test "
            f"({int(data.labels.sum())} defective), {geometry.crop} px")  # fmt: skip
        if _DRY_RUN.value:
            cell.check_images(data)
            cell.check_pictures(plan.config)
            parts = memory.estimate(plan.detector, data, parallel)
            say(json.dumps(record.make_record(plan, data, parallel)["config"], indent=1))
            say(memory.check(parts, memory.available_bytes(parallel.local[0])))
            continue
        run_dir = Path(_WORKDIR.value)
        if len(categories) > 1:
            run_dir /= category
        result = cell.run_cell(plan, data, run_dir, parallel, options, timings, say)
        if result is None or not result["metrics"]:  # another host's, or there was no test image
            continue
        rows[category] = result["metrics"]
        if _RESULTS_DIR.value:
            record.write_json(Path(_RESULTS_DIR.value) / result_path(result), _small(result))
    if rows:
        print(format_table(rows))
        if len(categories) > 1:
            report.write_index(Path(_WORKDIR.value), rows)
        print(f"written to {_WORKDIR.value}; open "
              f"{'index.html' if len(categories) > 1 else 'report.html'} there")  # fmt: skip
    return 0


def _small(result: dict) -> dict:
    """A result without its long list of files."""
    kept = {key: value for key, value in result.items() if key != "train_files"}
    return kept | {"backbone": result["config"]["backbone"]}


if __name__ == "__main__":
    program.run(main)
