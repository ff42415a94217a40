"""Fits one method on good parts and evaluates it: from images to the table's row.

    python -m experiments.run --method=padim --dataset=mvtec_ad --data_dir=DIR \\
        --category=screw --backbone=resnet18 --weights=FILE --workdir=RUN
    python -m experiments.run --method=patchcore --preset=cpu --dataset=folder \\
        --data_dir=GOOD_PARTS --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

The second one is all that a detector of your own parts needs; experiments.predict then judges new
images. Every field of the method's configuration is a flag, too: docs/flags.md lists what each
means and what each preset sets. --list shows what there is.
"""

from functools import partial
from pathlib import Path

from absl import flags

from imvad_jax import methods
from imvad_jax.commands import command
from imvad_jax.errors import UserError
from imvad_jax.model.model import HOLDOUT
from imvad_jax.programs import config_flags, devices, program, shared_flags, time_limit
from imvad_jax.programs.shared_flags import (
    BRIGHTNESS_MATCHED,
    CHECKPOINT_EVERY,
    DATA_DIR,
    DATASET,
    PRESET,
    RESULTS_DIR,
    SAVE_HEATMAPS,
    SAVE_PREDICTIONS,
    TRAINING_LOOP,
    WEIGHTS,
    WORKDIR,
)
from imvad_jax.reporting.table import format_table
from imvad_jax.runs import cells
from imvad_jax.runs.cells import RunRequest
from imvad_jax.runs.specs import Options
from imvad_jax.training import hosts

_METHOD = flags.DEFINE_string(
    "method", None, f"One of {', '.join(methods.METHODS)}; or package.module:Class of a package of "
    "your own (docs/extending.md).",
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
    f"is found from them. Default: {HOLDOUT} with --dataset=folder, else 0 (no threshold); where "
    "that is fewer than 20 images, methods without training are fitted on all, and the threshold "
    "is found by folds (a few more fits).",
)  # fmt: skip
_THRESHOLD_QUANTILE = flags.DEFINE_float(
    "threshold_quantile", 0.95, "The threshold is this quantile of the scores of good images "
    "that were not fitted on: 1 minus the share of good parts that may be flagged.",
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
for module in (config_flags, shared_flags, devices, time_limit):
    flags.adopt_module_key_flags(module)  # --help shows them, too


def find_request() -> RunRequest:
    """What the flags ask for. Raises UserError for flags that are missing or wrong."""
    if not _METHOD.value:
        raise UserError(f"--method is missing; one of {', '.join(sorted(methods.METHODS))}")
    methods.get(_METHOD.value)
    categories = shared_flags.find_categories(_CATEGORY.value)
    if not WORKDIR.value and not _DRY_RUN.value:
        raise UserError("--workdir is missing: name the directory that the run writes to")
    options = Options(
        save_predictions=SAVE_PREDICTIONS.value, save_heatmaps=SAVE_HEATMAPS.value,
        full_resolution_metrics=_FULL_RESOLUTION.value, benchmark_pro=_BENCHMARK_PRO.value,
        checkpoint_every=CHECKPOINT_EVERY.value, keep_checkpoints=_KEEP_CHECKPOINTS.value,
        brightness_matched=BRIGHTNESS_MATCHED.value,
        tensorboard=_TENSORBOARD.value, threshold_quantile=_THRESHOLD_QUANTILE.value,
        results_dir=RESULTS_DIR.value, training_loop=TRAINING_LOOP.value,
    )  # fmt: skip
    return RunRequest(
        method=_METHOD.value, preset=PRESET.value, overrides=config_flags.config_overrides(),
        dataset=DATASET.value, categories=categories, data_dir=DATA_DIR.value,
        decoded_dir=devices.decoded_dir(), weights=WEIGHTS.value, seed=_SEED.value,
        workdir=Path(WORKDIR.value or "."), holdout=_HOLDOUT.value,
        checkpoint=Path(_CHECKPOINT.value) if _CHECKPOINT.value else None,
        tiling=shared_flags.find_tiling(), reading=shared_flags.find_reading(), options=options,
        command=command("run"),
    )  # fmt: skip


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    if _LIST.value:
        print(cells.registries())
        return 0
    request = find_request()
    asked, limit = request.cells, time_limit.start_limit()
    if not _DRY_RUN.value:
        cells.check_before(request.workdir, asked)
    parallel = devices.start_jax()
    log = partial(print, flush=True) if hosts.is_first() else lambda text: None
    how = cells.Making(parallel=parallel, limit=limit, log=log)
    if _DRY_RUN.value:
        for one in asked:
            cells.say_what_is_needed(one, how)
        return 0
    rows, stopped = cells.run_cells(request.workdir, asked, how)
    if rows:
        print(format_table(rows))
        page = "index.html" if len(asked) > 1 else "report.html"
        print(f"written to {WORKDIR.value}; open {page} there")
    if stopped:
        raise stopped
    return 0
