"""A model on disk: its variables and its record, and how both are written and found."""

import dataclasses
from pathlib import Path
from typing import Any

from imvad_jax import __version__
from imvad_jax.audit.ranges import Ranges
from imvad_jax.data.decode import EVERY_DEPTH
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration, read_calibration
from imvad_jax.evaluation.calibration import UNFIT
from imvad_jax.owned import foreign_names
from imvad_jax.training import checkpoint
from imvad_jax.training.record import FORMAT, NAME, read_record
from imvad_jax.training.record_check import RANGES

_SAVED_BY = "imvad_jax.api"


def describe(model) -> dict[str, Any]:
    """The part of a record that describes a `Model`."""
    about = {
        "format": FORMAT,
        "method": model.method,
        "title": model.title,
        "preset": model.preset,
        "overrides": dict(model.overrides),
        "config": dataclasses.asdict(model.config),
        "seed": model.seed,
        "weights": model.weights,
        "notes": list(model.notes),
        "tile": model.tiling.tile if model.tiling else 0,  # pixels; 0: no tiles
        "overlap": model.tiling.overlap if model.tiling else 0,
        "versions": {"imvad_jax": __version__},
        "dataset": model.record.get("dataset"),
        "category": model.record.get("category"),
    }
    if model.ranges:
        about[RANGES] = model.ranges.as_dict()
    if model.reader != EVERY_DEPTH:
        about["full_scale"] = model.reader.full_scale
    return about


def save(directory: str | Path, model) -> None:
    """Writes the record and the variables of a `Model`; see `Model.save`. Raises UserError."""
    directory = Path(directory).expanduser()
    thresholds = model.calibration and model.calibration.as_dict()
    about = describe(model) | {"calibration": thresholds, "saved_by": _SAVED_BY}
    about["fitted_on"] = model.fitted_on
    stored = read_record(directory)
    try:
        others = sorted(foreign_names(directory)) if directory.exists() else []
        if others and (stored or {}).get("saved_by") != _SAVED_BY:
            raise UserError(
                f"{directory}: holds something else ({others[0]}); expected a new or empty "
                "directory, or a model that was saved there"
            )
        checkpoint.save_model(directory, about, model.variables)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror or error})") from None


def read(directory: str | Path, named: str = "") -> dict[str, Any]:
    """Reads the record of a fitted model from the directory of a saved model or a finished run.

    `named` is how messages call the directory, such as `--workdir=RUN`; by default its path.

    Raises:
      UserError: There is no record, it is not finished, or a newer version wrote it.
    """
    directory = Path(directory).expanduser()
    record = read_record(directory)
    if record is None or not checkpoint.has_checkpoint(directory):
        inside = sorted(p.name for p in directory.glob("*/") if checkpoint.has_checkpoint(p))
        if inside:
            raise UserError(
                f"{named or directory}: a run of several categories; name the directory of one: "
                f"{', '.join(inside[:8])}"
            )
        what = "the model there is not finished" if record is not None else "no model there"
        raise UserError(
            f"{named or directory}: {what}; expected the directory of a finished run of imvad, or "
            "of a saved model"
        )
    return record


def read_thresholds(directory: str | Path, record: dict[str, Any]) -> Calibration | None:
    """Reads the calibration of a model: from its record, or from the file beside that of a run.

    Raises:
      UserError: it is damaged.
    """
    directory = Path(directory).expanduser()
    stored = record.get("calibration")
    if stored is None:
        return read_calibration(directory)
    try:
        return Calibration.from_dict(stored)
    except UNFIT as error:
        raise UserError(
            f"{directory / NAME}: it holds no calibration ({type(error).__name__} {error})"
        ) from None


def read_ranges(record: dict[str, Any]) -> Ranges | None:
    """The ranges of the good images in a record, which was looked at; None in those of before."""
    return Ranges.from_dict(record[RANGES]) if record.get(RANGES) else None
