"""One run (a cell of the table) in five steps: resolve, obtain, calibrate, score, write."""

import contextlib
import dataclasses
import enum
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from imvad_jax import locks
from imvad_jax.audit import Audit
from imvad_jax.commands import command
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.tiled import TiledImages
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration
from imvad_jax.evaluation.calibration import NAME as CALIBRATION
from imvad_jax.model import Model, inputs, load
from imvad_jax.model.make import assemble
from imvad_jax.progress import tqdm_progress
from imvad_jax.reporting import heatmaps, report
from imvad_jax.reporting.history import History
from imvad_jax.reporting.predictions_file import pack_maps, pack_masks
from imvad_jax.runs import (
    audits,
    begun,
    brightness,
    checks,
    evaluate,
    folds,
    identity,
    loop,
    memory,
)
from imvad_jax.runs.record import make_record, write_json, write_npz, write_result
from imvad_jax.runs.specs import Cell, Options, Work
from imvad_jax.training import checkpoint, gradient, hosts
from imvad_jax.training.record import config_of, read_record
from imvad_jax.training.score import Scores


class Origin(enum.Enum):
    """Where the fitted model of a cell comes from."""

    NEW = "it is to be fitted"
    SAME = "this run fitted it before"
    OTHER = "another run fitted it"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A cell resolved: its images, its record, and what is to be done for its model."""

    cell: Cell
    data: CategoryData
    origin: Origin
    source: Path  # the directory that the fitted model lies in, or will
    model: Model  # not fitted; without variables where it need not be
    record: dict
    fitted_on: tuple[str, ...] = ()  # images that a fitted model was fitted on
    audit: Audit | None = None  # on the first host


def run_cell(cell: Cell, work: Work) -> dict | None:
    """Fits (or restores), scores, evaluates and writes one cell; returns its record and metrics.

    A run directory that already holds the fitted detector of the same run is evaluated again
    without fitting. Of several hosts the first one evaluates and writes; the others return None.

    Raises:
      UserError: bad input, or the directory holds another run. Nothing is overwritten then.
      Held: another process makes this cell, or another one there.
      Stopped: the rest is not expected to end within the limit; the same call goes on.
    """
    with _alone(cell.run_dir, work):
        case = resolve(cell, work)
        model = calibrate(case, obtain(case, work), work)
        scores, calibration = score(case, model, work), model.calibration
        matched = score_matched(case, model, work)
        del model  # the metrics need its memory
        return write(case, calibration, scores, work, matched)


@contextlib.contextmanager
def _alone(run_dir: Path, work: Work) -> Iterator[None]:
    """No other run writes to the directory meanwhile; of several hosts the first holds the lock."""
    refused = None
    with contextlib.ExitStack() as stack:
        if hosts.is_first():
            try:
                stack.enter_context(locks.hold(run_dir, log=work.log))
            except UserError as error:
                refused = error
        if hosts.any_of(refused is not None):  # on all hosts alike, or the others would wait
            raise refused or locks.Held(f"--workdir={run_dir}: the first process is refused it")
        yield


def resolve(cell: Cell, work: Work) -> Case:
    """The images, and whether this run, another or none has fitted the model; says what is needed.

    Raises:
      UserError: see `run_cell`.
      Stopped: there is no time left for the images.
    """
    data = open_data(cell, work)
    checks.check_images(data, cell.needs_test)
    if cell.options.brightness_matched:
        brightness.check(data)
    audit = audits.audit_cell(cell, data, work)
    if cell.options.save_heatmaps:
        checks.check_heatmaps(cell.run_dir, data)
    stored, source = read_record(cell.run_dir), cell.checkpoint or cell.run_dir
    fitter = read_record(source)
    origin = Origin.NEW
    if fitter is not None and checkpoint.has_checkpoint(source):
        origin = Origin.OTHER if cell.checkpoint else Origin.SAME
    elif cell.checkpoint:
        raise UserError(f"--checkpoint={source}: no finished run of imvad there")
    cell = begun.with_its_convolution(cell, stored, fitted=origin is Origin.SAME)
    model = _unfitted(cell, data, origin, fitter, work)
    ranges = audits.find_ranges(audit, origin is Origin.NEW, fitter)
    model = dataclasses.replace(model, ranges=ranges)
    record = make_record(model, cell, data, work.parallel)
    divided = folds.find_folds(cell, data)
    if divided:
        record[folds.KEY] = divided
    if cell.checkpoint and (other := identity.difference(fitter or {}, record, identity.DETECTOR)):
        raise UserError(f"--checkpoint: {source} holds another detector ({other})")
    if stored is not None:
        identity.refuse_other(cell.run_dir, identity.difference(stored, record))
    if origin is Origin.SAME and stored:  # commit and hardware stay those of the fit
        record = stored | {"found": data.found.as_dict()}
    elif stored is not None:  # as are the pictures that lie there
        record["marked"] = stored.get("marked", False)
    taken = None
    if origin is Origin.NEW:
        taken = loop.find_loop(
            cell, model.detector, data, work.parallel, stored=stored,
            pictures=memory.pictures_of(model),
        )  # fmt: skip
        record |= {loop.KEY: taken} if taken else {}
    for note in record["notes"]:
        work.log(f"note: {note}")
    work.log(memory.check_fit(model, data, work.parallel, loop=taken, folds=divided))
    checks.make_directory(cell.run_dir)
    hosts.wait("records read")  # before the first host writes its own
    fitted_on = tuple(record["train_files"]) if origin is Origin.SAME else ()
    return Case(
        cell=cell, data=data, origin=origin, source=source, model=model, record=record,
        fitted_on=fitted_on, audit=audit,
    )  # fmt: skip


def obtain(case: Case, work: Work) -> Model:
    """The fitted model: restored, or fitted and stored.

    Raises:
      UserError: the training diverged, an image cannot be read, or a checkpoint is damaged.
      Stopped: the rest of the fit is not expected to end within the limit; it is stored.
    """
    model, data, run_dir = case.model, case.data, case.cell.run_dir
    if case.origin is not Origin.NEW:
        work.log(f"restored the fitted detector from {case.source}; not fitting again")
        # The fields without effect on results are as they are asked for now.
        return dataclasses.replace(load(case.source, work.parallel), detector=model.detector)
    if hosts.is_first():
        write_json(run_dir / "config.json", case.record)
    work.log(f"compiling {model.title} on first use (cached for later runs) ...")
    with (
        work.timings.stage("fit"),
        _training_options(case, work) as options,
    ):
        model = model.fit_images(
            data.train, progress=work.progress(data.tiling), timings=work.timings,
            limit=work.limit, **options,
        )  # fmt: skip
    with work.timings.stage("checkpoint"):
        checkpoint.save_variables(run_dir, model.variables)
    return model


def calibrate(case: Case, model: Model, work: Work) -> Model:
    """The model with the thresholds of this run; without any where no image is held out.

    A model that another run fitted keeps that one's. None of the images that a restored model was
    fitted on is used, even where the draw among those that are there now would hold it out.
    """
    data, options = case.data, case.cell.options
    with work.timings.stage("calibrate"):
        if case.origin is not Origin.OTHER:
            names = data.held_out_names
            new = [n for n, name in enumerate(names) if name not in case.fitted_on]
            if case.record.get(folds.KEY):
                model = _calibrate_by_folds(case, model, work)
            elif data.held_out is None:
                model = dataclasses.replace(model, calibration=None)
            elif new:
                model = model.calibrate(
                    data.held_out.take(new), quantile=options.threshold_quantile,
                    names=[names[n] for n in new], progress=work.progress(data.tiling),
                )  # fmt: skip
        if model.calibration and hosts.is_first():
            write_json(case.cell.run_dir / CALIBRATION, model.calibration.as_dict())
    if model.calibration:
        work.log(model.calibration.describe())
        for note in model.calibration.notes:
            work.log(f"note: {note}")
    return model


def _calibrate_by_folds(case: Case, model: Model, work: Work) -> Model:
    """The model with thresholds from the images that it was fitted on, or anew from their scores.

    Images that came later are not looked at: the thresholds are those of what was fitted.
    """
    data, quantile = case.data, case.cell.options.threshold_quantile
    if model.calibration and model.calibration.folds:
        return dataclasses.replace(model, calibration=model.calibration.at(quantile))
    known = case.fitted_on or data.train_names
    numbers = [n for n, name in enumerate(data.train_names) if name in known]
    if len(numbers) < 2:
        return dataclasses.replace(model, calibration=None)
    return model.calibrate_by_folds(
        data.train.take(numbers), case.record[folds.KEY], quantile=quantile,
        names=[data.train_names[n] for n in numbers], progress=work.progress(data.tiling),
    )  # fmt: skip


def score(case: Case, model: Model, work: Work) -> Scores | None:
    """What the model says of the test images; None where there are none."""
    data = case.data
    if not len(data.test):
        return None
    with work.timings.stage("score"):
        return model.scorer.score(
            data.test, progress=work.progress(data.tiling), timings=work.timings
        )


def score_matched(case: Case, model: Model, work: Work) -> Scores | None:
    """What the model says of the test images at the training's brightness; None: it is not asked.

    Raises:
      UserError: the images are not held in memory.
    """
    data = case.data
    if not case.cell.options.brightness_matched or not len(data.test):
        return None
    shifted = brightness.matched(data)
    with work.timings.stage("score again"):
        return model.scorer.score(shifted, progress=work.progress(None), timings=work.timings)


def write(
    case: Case,
    calibration: Calibration | None,
    scores: Scores | None,
    work: Work,
    matched: Scores | None = None,
) -> dict | None:
    """Evaluates and writes all that a run leaves behind; of several hosts the first one does.

    Raises:
      UserError: somebody else's file is in the way; it stays.
      Stopped: there is no time left for it.
    """
    result = None
    if scores is None:
        result = case.record | {"metrics": {}, "timings": work.timings.as_dict()}
        if hosts.is_first():
            audits.write_audit(case.cell.run_dir, case.audit)
            _say_how_to_score(case, work)
    elif hosts.is_first():
        work.limit.check("the evaluation")
        result = _write_evaluation(case, calibration, scores, work, matched)
    hosts.wait("cell written")
    return result


def open_data(cell: Cell, work: Work) -> CategoryData:
    """Decodes the images of a cell, or takes them from the cache, and says what they are.

    Raises:
      UserError: bad files, or none.
      Stopped: there is no time left for it.
    """
    work.limit.check(f"the images of {cell.category}")
    geometry, reading, tiling = Geometry.of(cell.config), cell.reading, cell.tiling
    if cell.checkpoint and reading.full_scale is None:  # as its detector saw them
        stored = read_record(cell.checkpoint) or {}
        reading = dataclasses.replace(reading, full_scale=stored.get("full_scale"))
    with work.timings.stage("decode"):
        data = open_category(
            cell.dataset, cell.data_dir, cell.category, geometry, cell.decoded_dir, seed=cell.seed,
            progress=work.track,
            tiling=tiling, keep_tiles="gradient" in cell.detector.phases,
            reading=reading,
        )  # fmt: skip
    for text in (f"{data.name}: {data.found.line}", *(f"note: {n}" for n in data.found.notes)):
        work.log(text)
    if found := folds.find_folds(cell, data):
        apart = f" and to set the threshold by {found} folds ({found} more, short fits)"
    else:
        data = data.hold_out(cell.holdout, cell.seed)
        apart = f", {len(data.held_out_names)} to set the threshold" if data.held_out else ""
    work.log(f"{len(data.train_names)} good images to fit on{apart}, {len(data.test_names)} to "
             f"test ({int(data.labels.sum())} defective), {geometry.crop} px")  # fmt: skip
    if tiling:
        work.log(f"in tiles of {tiling.tile} px that overlap by {tiling.overlap}: "
                 f"{len(data.train)} to fit on, {len(data.test)} to test")  # fmt: skip
    return data


def _unfitted(cell: Cell, data: CategoryData, origin: Origin, fitter: dict | None, work: Work):
    """The model that is to be fitted, or the description of the one that was."""
    about = {
        "preset": cell.preset, "overrides": cell.overrides, "parallel": work.parallel,
        "tiling": data.tiling, "reader": data.found.reader,
    }  # fmt: skip
    if fitter and origin is not Origin.NEW and (cell.checkpoint or not cell.weights):
        config, fallback = cell.config, cell.config.without_missing_layers()
        if fallback is not None and config_of(fitter) == fallback:
            config = fallback
        detector = dataclasses.replace(cell, config=config).detector
        return Model(
            cell.method, detector, {}, seed=cell.seed, weights=fitter["weights"],
            notes=tuple(fitter["notes"]), **about,
        )  # fmt: skip
    expected = ((fitter or {}).get("weights") or {}).get("sha256")
    model = assemble(cell.method, cell.config, cell.weights, cell.seed, expected, **about)
    if origin is not Origin.NEW:
        return model
    pictures, notes = inputs.read_picture_dirs(model.config)
    return dataclasses.replace(
        model, variables={**model.variables, **pictures}, notes=(*model.notes, *notes)
    )


@contextlib.contextmanager
def _training_options(case: Case, work: Work) -> Iterator[dict]:
    """What a fit with a gradient phase is given besides: its loop, checkpoints, and the history."""
    config, options = case.model.detector.config, case.cell.options
    run_dir = case.cell.run_dir
    if "gradient" not in case.model.detector.phases:
        yield {}
        return
    every = options.checkpoint_every or max(config.epochs // 20, 1)
    saved = checkpoint.TrainingCheckpoints(run_dir, every, options.keep_checkpoints, log=work.log)
    if saved.latest():
        work.log(f"resuming after epoch {saved.latest()} of {config.epochs}")
    with contextlib.ExitStack() as stack:
        stack.callback(saved.close)
        given = {"checkpoints": saved, loop.KEY: case.record[loop.KEY]}
        if hosts.is_first():
            images = gradient.epoch_steps(len(case.data.train), config) * config.batch_size
            history = stack.enter_context(History(run_dir, images, options.tensorboard))
            given["on_epoch"] = history.record
        yield given


def _say_how_to_score(case: Case, work: Work) -> None:
    """There is nothing to evaluate."""
    work.log("no test images: the detector is fitted and stored; there is nothing to evaluate")
    work.log(f"score new images: {command('predict', [f'--workdir={case.cell.run_dir}'])} "
             "--input=FILE|FOLDER|GLOB --output=DIR")  # fmt: skip
    write_json(case.cell.run_dir / "timings.json", work.timings.as_dict())


def _write_evaluation(
    case: Case,
    calibration: Calibration | None,
    scores: Scores,
    work: Work,
    matched: Scores | None,
) -> dict:
    data, options, run_dir = case.data, case.cell.options, case.cell.run_dir
    with work.timings.stage("metrics"):
        metrics, notes = evaluate.evaluate(scores, data, options, calibration, work.log)
        metrics |= audits.correlate(case.audit, data, scores.image, work.log)
        if matched is not None:
            metrics |= brightness.metrics_of(matched, data, options, work.log)
    for note in notes:
        work.log(f"note: {note}")
    notes = [*case.record["notes"], *data.found.notes, *notes]
    record = case.record | {"notes": list(dict.fromkeys(notes))}
    with work.timings.stage("write"):
        write_json(run_dir / "config.json", record)
        audits.write_audit(run_dir, case.audit)
        _write_pictures(scores, data, options, run_dir)
    write_json(run_dir / "timings.json", work.timings.as_dict())
    result = record | {"metrics": metrics, "timings": work.timings.as_dict()}
    if options.save_predictions:
        report.write_report(run_dir, metrics)
    if options.results_dir:
        write_result(options.results_dir, result)
    write_json(run_dir / "metrics.json", metrics)  # last: it says that the cell is finished
    return result


def _write_pictures(scores: Scores, data: CategoryData, options: Options, run_dir: Path) -> None:
    """The predictions as arrays, and the heat maps."""
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
    if options.save_predictions:
        write_npz(run_dir / "predictions.npz", predictions)
    if options.save_heatmaps:
        images = (
            data.test.pictures(heatmaps.MAX_SIDE)
            if isinstance(data.test, TiledImages)
            else (im for batch in data.test.batches(32) for im in batch.images[batch.valid])
        )
        done = tqdm_progress(len(data.test_names), "heat maps")
        heatmaps.write_heatmaps(run_dir / "heatmaps", images, predictions, done)
