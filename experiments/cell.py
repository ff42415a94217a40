"""One cell of the table: one method on one category, from good parts to its row of metrics."""

import contextlib
import dataclasses
import warnings
from functools import partial
from pathlib import Path

import numpy as np

from experiments import checks, memory, program, settings
from experiments.calibrate import find_thresholds, verdicts
from experiments.full_resolution import full_resolution
from experiments.record import make_record, write_json, write_npz, write_result
from imvad_jax import backbones, methods
from imvad_jax.backbones.weights import MissingTensorError, load_weights
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.pictures import read_pictures
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.reporting import heatmaps, report
from imvad_jax.reporting.history import History
from imvad_jax.reporting.packing import pack_maps, pack_masks
from imvad_jax.reporting.progress import tqdm_progress, track, untracked
from imvad_jax.training import checkpoint, gradient, hosts
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.job import silent_progress
from imvad_jax.training.limit import NO_LIMIT, Limit, limited
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from imvad_jax.training.timing import Timings


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run writes and how it evaluates; nothing here changes the detector."""

    save_predictions: bool = True
    save_heatmaps: bool = True
    full_resolution_metrics: bool = False
    benchmark_pro: bool = False
    checkpoint_every: int = 0  # epochs; 0: about twenty times a training
    keep_checkpoints: int = 2
    tensorboard: bool = False
    threshold_quantile: float = 0.95
    results_dir: str = ""  # also takes the small result file; empty: none is written


@dataclasses.dataclass
class Plan:
    """A cell resolved from flags, before anything is computed."""

    method: str
    preset: str
    overrides: dict[str, str]
    config: methods.DetectorConfig
    seed: int
    weights: str | None  # as given by flag
    command: str
    checkpoint: Path | None = None  # a run whose fitted detector is evaluated instead of fitting
    holdout: float = 0.0  # share of the good images that is not fitted on
    tiling: Tiling | None = None  # None: images are looked at whole
    reading: Reading = AS_IS

    @property
    def detector(self) -> methods.Detector:
        """The unfitted detector."""
        return methods.make(self.method, self.config)


def open_data(
    plan: Plan,
    dataset: str,
    data_dir: str | None,
    category: str,
    decoded_dir: str | None,
    timings: Timings,
    say=print,
    limit: Limit = NO_LIMIT,
) -> CategoryData:
    """Decodes the images of a category, or takes them from the cache, and says what they are.

    Raises:
      UserError: bad files, or none.
      Stopped: there is no time left for it.
    """
    limit.check(f"the images of {category}")
    geometry, reading = Geometry.of(plan.config), plan.reading
    if plan.checkpoint and reading.full_scale is None:  # as its detector saw them
        stored = settings.read_record(plan.checkpoint) or {}
        reading = dataclasses.replace(reading, full_scale=stored.get("full_scale"))
    with timings.stage("decode"):
        data = open_category(
            dataset, data_dir, category, geometry, decoded_dir, plan.seed,
            progress=track if hosts.is_first() else untracked,
            tiling=plan.tiling, keep_tiles="gradient" in plan.detector.phases,
            reading=reading,
        )  # fmt: skip
    say(f"{data.name}: {data.found.line}")
    for note in data.found.notes:
        say(f"note: {note}")
    data = data.hold_out(plan.holdout, plan.seed)
    apart = f", {len(data.held_out_names)} to find the threshold" if data.held_out else ""
    say(f"{len(data.train_names)} good images to fit on{apart}, {len(data.test_names)} to test "
        f"({int(data.labels.sum())} defective), {geometry.crop} px")  # fmt: skip
    if plan.tiling:
        say(f"in tiles of {plan.tiling.tile} px that overlap by {plan.tiling.overlap}: "
            f"{len(data.train)} to fit on, {len(data.test)} to test")  # fmt: skip
    return data


def load_backbone(plan: Plan, expected_sha256: str | None) -> tuple[dict | None, dict | None, list]:
    """Pretrained variables, their record, and notes; may change `plan.config` and say so."""
    if not plan.detector.outputs:
        unused = plan.weights and plan.config.backbone != "none"
        return None, None, ["Trained from scratch: --weights is not used."] if unused else []
    spec = backbones.get(plan.config.backbone)
    notes = []

    def load():
        outputs = plan.detector.outputs
        return load_weights(spec, plan.weights, outputs, plan.seed, expected_sha256)

    try:
        loaded = load()
    except MissingTensorError:
        fallback = plan.config.without_missing_layers()
        if fallback is None:
            raise
        changed = [
            f"{name}={value} for {getattr(plan.config, name)}"
            for name, value in dataclasses.asdict(fallback).items()
            if value != getattr(plan.config, name)
        ]
        plan.config = fallback
        loaded = load()
        notes.append(f"The weights lack a layer that this method uses; taken instead: {changed[0]}")
    if loaded.source == "random":
        notes.append("RANDOM BACKBONE WEIGHTS: these figures mean nothing.")
    return loaded.variables, {"source": loaded.source, "sha256": loaded.sha256}, notes


def load_pictures(config: methods.DetectorConfig) -> tuple[dict, list[str]]:
    """Pictures that the training takes besides the good images, as collections; notes on them."""
    collections, notes = {}, []
    for name, directory in config.picture_dirs.items():
        if directory:
            images = read_pictures(directory, config.input_size)
            collections[name] = {"images": images}
            notes.append(f"anomaly {name}: {len(images)} images of {directory}")
        else:
            notes.append(f"anomaly {name}: drawn by the program")
    return collections, notes


def run_cell(
    plan: Plan,
    data: CategoryData,
    run_dir: Path,
    parallel: Parallel,
    options: Options,
    timings: Timings,
    say=print,
    limit: Limit = NO_LIMIT,
) -> dict | None:
    """Fits (or restores), scores, evaluates and writes one cell; returns its record and metrics.

    A run directory that already holds the fitted detector of the same run is evaluated again
    without fitting. Of several hosts the first one evaluates and writes; the others return None.

    Raises:
      UserError: bad input, or the directory holds another run. Nothing is overwritten then.
      Stopped: the rest is not expected to end within the limit; the same call goes on.
    """
    checks.check_images(data)
    if options.save_heatmaps:
        checks.check_heatmaps(run_dir, data)
    stored = settings.read_record(run_dir)
    source = plan.checkpoint or run_dir
    origin = settings.read_record(source)
    fitted = origin is not None and checkpoint.has_checkpoint(source)
    pictures = {}
    if plan.checkpoint and not fitted:
        raise UserError(f"--checkpoint={source}: no finished run of experiments.run there")
    if fitted and (plan.checkpoint or not plan.weights):  # it holds the backbone, too
        backbone, fallback = None, plan.config.without_missing_layers()
        if fallback is not None and settings.config_of(origin) == fallback:
            plan.config = fallback
        record = make_record(plan, data, parallel)
        record |= {"weights": origin["weights"], "notes": origin["notes"]}
    else:
        expected = ((origin or {}).get("weights") or {}).get("sha256")
        backbone, weights, notes = load_backbone(plan, expected)
        if not fitted:
            pictures, sources = load_pictures(plan.config)
            notes += sources
        notes += plan.config.notes
        record = make_record(plan, data, parallel) | {"weights": weights, "notes": notes}
    if plan.checkpoint and (different := settings.difference(origin, record, settings.DETECTOR)):
        raise UserError(f"--checkpoint: {source} holds another detector ({different})")
    if stored is not None:
        settings.refuse_other(run_dir, settings.difference(stored, record))
    if fitted and not plan.checkpoint:
        # Commit and hardware stay those of the fit.
        record = stored | {"found": data.found.as_dict()}
    elif stored is not None:  # as are the pictures that lie there
        record["marked"] = stored.get("marked", False)
    for note in record["notes"]:
        say(f"note: {note}")
    say(memory.check(memory.estimate(plan.detector, data, parallel, pictures),
                     memory.available_bytes(parallel.local[0])))  # fmt: skip
    checks.make_directory(run_dir)
    hosts.wait("records read")  # before the first host writes its own
    detector = plan.detector
    if fitted:
        say(f"restored the fitted detector from {source}; not fitting again")
        variables = checkpoint.load_variables(source)
    else:
        if hosts.is_first():
            write_json(run_dir / "config.json", record)
        say(f"compiling {record['title']} as it is first used (kept for later runs) ...")
        with timings.stage("fit"):
            variables = init_variables(detector, backbone, plan.seed) | pictures
            with training_options(detector, data, run_dir, options, say) as extra:
                variables = fit(
                    detector, variables, data.train, parallel, plan.seed,
                    progress=progress(data, limit), timings=timings, limit=limit, **extra,
                )  # fmt: skip
        with timings.stage("checkpoint"):
            checkpoint.save_variables(run_dir, variables)
    with timings.stage("calibrate"):
        found = find_thresholds(
            plan, detector, variables, data, run_dir, parallel, options, progress(data, limit),
            record["train_files"],
        )  # fmt: skip
    if found:
        say(found.describe())
    if not len(data.test) and hosts.is_first():
        say("no test images: the detector is fitted and stored; there is nothing to evaluate")
        say(f"score new images: {program.command('predict', [f'--workdir={run_dir}'])} "
            "--input=FILE|FOLDER|GLOB --output=DIR")  # fmt: skip
        write_json(run_dir / "timings.json", timings.as_dict())
    if not len(data.test):
        return record | {"metrics": {}, "timings": timings.as_dict()}
    with timings.stage("score"):
        scores = score(
            detector, variables, data.test, parallel, progress=progress(data, limit),
            timings=timings,
        )  # fmt: skip
    del variables
    result = None
    if hosts.is_first():
        limit.check("the evaluation")
        result = evaluate_cell(scores, data, run_dir, options, timings, record, say, found)
    hosts.wait("cell written")
    return result


def progress(data: CategoryData, limit: Limit = NO_LIMIT):
    """The progress display of this host: only the first one has any; it keeps within the limit."""
    if not hosts.is_first():
        return silent_progress
    shown = partial(tqdm_progress, unit="tiles") if data.tiling else tqdm_progress
    # Of several hosts none may stop alone; they stop between epochs.
    return limited(shown, limit) if hosts.count() == 1 else shown


@contextlib.contextmanager
def training_options(detector, data: CategoryData, run_dir: Path, options: Options, say):
    """What a fit with a gradient phase is given besides: checkpoints, and the history it writes."""
    if "gradient" not in detector.phases:
        yield {}
        return
    every = options.checkpoint_every or max(detector.config.epochs // 20, 1)
    saved = checkpoint.TrainingCheckpoints(run_dir, every, options.keep_checkpoints)
    if saved.latest():
        say(f"resuming after epoch {saved.latest()} of {detector.config.epochs}")
    with contextlib.ExitStack() as stack:
        stack.callback(saved.close)
        given = {"checkpoints": saved}
        if hosts.is_first():
            images = gradient.epoch_steps(len(data.train), detector.config)
            images *= detector.config.batch_size
            history = stack.enter_context(History(run_dir, images, options.tensorboard))
            given["on_epoch"] = history.record
        yield given


def evaluate_cell(scores, data, run_dir, options, timings, record, say, calibration=None) -> dict:
    """Evaluates the scores of the test images and writes everything a run leaves behind."""
    with timings.stage("metrics"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = compute_metrics(scores, data, options)
        if scores.maps is not None:
            metrics |= count_regions(data, options)
        if calibration:
            metrics |= verdicts(scores.image, data.labels, calibration.image.threshold, say)
    found = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    found += data.late_notes
    if options.full_resolution_metrics:
        found.append("Pixel metrics are computed at the original size of the masks.")
    if data.tiling:
        found.append(
            f"Looked at in tiles of {data.tiling.tile} px that overlap by {data.tiling.overlap}: "
            "the score of an image is that of its highest tile, its map is blended from theirs."
        )
    if data.masks is not None:
        vanished = sum(bool(y) and not mask.any() for y, mask in zip(data.labels, data.masks))
        if vanished:
            found.append(
                f"{vanished} defective images have an empty mask at {size_in_words(data)}: they "
                "count for the image metrics only"
            )
        if metrics.get("regions_vanished"):
            found.append(
                f"{metrics['regions_vanished']} of {metrics['regions']} defect regions vanish at "
                f"{size_in_words(data)} (too small, or outside the crop), so no pixel metric "
                "counts them; --full_resolution_metrics keeps them"
            )
    for note in found:
        say(f"note: {note}")
    found = [*data.found.notes, *found]
    record = record | {"notes": list(dict.fromkeys(record["notes"] + found))}
    predictions = {
        "path": np.array(data.test_names),
        "label": data.labels,
        "defect": np.array(data.test_defects),
        "image_score": scores.image,
    }
    if scores.maps is not None:
        predictions |= pack_maps(scores.maps)
    if data.masks is not None:
        predictions |= pack_masks(data.masks)
    with timings.stage("write"):
        write_json(run_dir / "config.json", record)
        if options.save_predictions:
            write_npz(run_dir / "predictions.npz", predictions)
        if options.save_heatmaps:
            images = (
                data.test.pictures(heatmaps.MAX_SIDE)
                if data.tiling
                else (im for batch in data.test.batches(32) for im in batch.images[batch.valid])
            )
            done = tqdm_progress(len(data.test_names), "heat maps")
            heatmaps.write_heatmaps(run_dir / "heatmaps", images, predictions, done)
    write_json(run_dir / "timings.json", timings.as_dict())
    result = record | {"metrics": metrics, "timings": timings.as_dict()}
    if options.save_predictions:
        report.write_report(run_dir, metrics)
    if options.results_dir:
        write_result(options.results_dir, result)
    write_json(run_dir / "metrics.json", metrics)  # last: it says that the cell is finished
    return result


def size_in_words(data: CategoryData) -> str:
    """The size at which masks are compared with maps."""
    return "the size of their maps" if data.tiling else f"{data.geometry.crop} px"


def count_regions(data: CategoryData, options: Options) -> dict[str, int]:
    """How many defect regions there are, and how many the pixel metrics cannot count."""
    if data.masks is None:
        return {}
    vanished = 0 if options.full_resolution_metrics else data.found.vanished
    return {"regions": data.found.regions, "regions_vanished": vanished}


def compute_metrics(scores, data: CategoryData, options: Options) -> dict:
    """The row of the table: `image_auroc image_ap pixel_auroc pixel_ap pixel_pro`."""
    metrics = image_metrics(scores.image, data.labels)
    if scores.maps is None or data.masks is None:
        return metrics | dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_pro"))
    maps, masks = scores.maps, data.masks
    if options.full_resolution_metrics:
        maps, masks = full_resolution(maps, data)
    return metrics | pixel_metrics(maps, masks, benchmark_pro=options.benchmark_pro)
