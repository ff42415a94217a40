"""Fits one method on images of good parts and evaluates it on the test images.

    imvad run --method=padim --data_dir=DIR --category=screw --weights=FILE --workdir=RUN
    imvad run --method=patchcore --preset=cpu --dataset=folder \\
        --data_dir=GOOD_PARTS --weights=hub:timm/resnet18.tv_in1k@main --workdir=RUN

The second command fits a detector on your own parts; imvad predict then scores new images. Every
field of the method's configuration is also a flag: docs/flags.md explains them and lists the values
of the presets. --list prints the methods, backbones and datasets.
"""

from pathlib import Path

from absl import flags

from imvad_jax import methods
from imvad_jax.commands import command
from imvad_jax.errors import UserError, say
from imvad_jax.model.model import HOLDOUT
from imvad_jax.programs import config_flags, devices, output, program, shared_flags, time_limit
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
from imvad_jax.runs import cells
from imvad_jax.runs.cells import RunRequest
from imvad_jax.runs.specs import Options
from imvad_jax.training import hosts

_METHOD = flags.DEFINE_string(
    "method", None, f"Method to fit: {', '.join(methods.METHODS)}; or package.module:Class for a "
    "method of your own package (docs/extending.md).",
)  # fmt: skip
_CATEGORY = flags.DEFINE_list(
    "category", "all", "Comma-separated categories, or all. With several, each one gets its own "
    "folder in --workdir.",
)  # fmt: skip
_CHECKPOINT = program.define_path(
    "checkpoint", None, "Directory of a finished run of one category. Its fitted detector is "
    "evaluated; nothing is fitted.",
)  # fmt: skip
_SEED = flags.DEFINE_integer("seed", 0, "Seed of all random numbers.", lower_bound=0)
_HOLDOUT = flags.DEFINE_float(
    "holdout", None, "Fraction of the good images held out from the fit, to set the threshold of "
    f"the verdict. Default: {HOLDOUT} with --dataset=folder, otherwise 0 (no threshold). Where "
    "that holds out fewer than 20 images, methods without training are fitted on all images "
    "instead, and the threshold is set by cross-validation, at the cost of a few more fits.",
)  # fmt: skip
_THRESHOLD_QUANTILE = flags.DEFINE_float(
    "threshold_quantile", 0.95, "The threshold is this quantile of the scores of held-out good "
    "images: 1 minus the fraction of good parts that may be flagged. Raise it for fewer false "
    "alarms.",
)  # fmt: skip
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print what the run would do and how much memory it needs; write nothing."
)
_LIST = flags.DEFINE_bool("list", False, "List the methods, backbones and datasets.")
_FULL_RESOLUTION = flags.DEFINE_bool(
    "full_resolution_metrics", False, "Compute pixel metrics at the original size of the masks, "
    "not at the size of the anomaly maps.",
)  # fmt: skip
_BENCHMARK_PRO = flags.DEFINE_bool(
    "benchmark_pro", False, "Also report the PRO of the published benchmark, which uses 100 "
    "thresholds, as pixel_pro_100.",
)  # fmt: skip
_KEEP_CHECKPOINTS = flags.DEFINE_integer(
    "keep_checkpoints", 2, "Number of training checkpoints to keep.", lower_bound=1
)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Also write scalars for TensorBoard.")
FIRST = (
    "method", "preset", "dataset", "data_dir", "category", "weights", "workdir", "seed", "holdout",
    "list", "dry_run", "json",
)  # fmt: skip
for module in (config_flags, shared_flags, devices, time_limit, output):
    flags.adopt_module_key_flags(module)  # --help shows them, too


def find_request(recorded: str = "") -> RunRequest:
    """What the flags ask for; `recorded` is the command for the record, if it is not this one.

    Raises:
      UserError: flags are missing or wrong.
    """
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
        brightness_matched=BRIGHTNESS_MATCHED.value, tensorboard=_TENSORBOARD.value,
        threshold_quantile=_THRESHOLD_QUANTILE.value,
        results_dir=RESULTS_DIR.value, training_loop=TRAINING_LOOP.value,
    )  # fmt: skip
    return RunRequest(
        method=_METHOD.value, preset=PRESET.value, overrides=config_flags.config_overrides(),
        dataset=DATASET.value, categories=categories, data_dir=DATA_DIR.value,
        decoded_dir=devices.decoded_dir(), weights=WEIGHTS.value, seed=_SEED.value,
        workdir=Path(WORKDIR.value or "."), holdout=_HOLDOUT.value,
        checkpoint=Path(_CHECKPOINT.value) if _CHECKPOINT.value else None,
        tiling=shared_flags.find_tiling(), reading=shared_flags.find_reading(), options=options,
        command=recorded or command("run"),
    )  # fmt: skip


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    if _LIST.value:
        print(cells.registries())
        return 0
    return make(find_request())


def make(request: RunRequest) -> int:
    """Runs the request, or prints its needs with --dry_run, and prints the result."""
    asked, limit = request.cells, time_limit.start_limit()
    if not _DRY_RUN.value:
        cells.check_before(request.workdir, asked)
    parallel = devices.start_jax()
    log = say if hosts.is_first() else lambda text: None
    how = cells.Making(parallel=parallel, limit=limit, log=log)
    if _DRY_RUN.value:
        needed = [cells.what_is_needed(one, how) for one in asked]
        output.result("\n".join(map(cells.needed_text, needed)), needed)
        return 0
    rows, stopped = cells.run_cells(request.workdir, asked, how)
    if hosts.is_first():
        output.result(*cells.result(request.workdir, asked, rows))
    if stopped:
        raise stopped
    return 0
