"""The record beside a fitted detector, `config.json`: which method it is, and how it is set."""

import json
from pathlib import Path

from imvad_jax import methods
from imvad_jax.errors import UserError

NAME = "config.json"


def read_record(run_dir: str | Path) -> dict | None:
    """The config.json of a run directory, or None if it holds no run.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(run_dir) / NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        for field in ("method", "config"):
            if not isinstance(record, dict) or field not in record:
                raise ValueError(f"no field '{field}'")
        return record
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: not a run's record ({error}); expected that of experiments.run"
        ) from None


def config_of(record: dict) -> methods.DetectorConfig:
    """The configuration stored in a run's record.

    Raises:
      UserError: it does not fit, or the package of the method is not there.
    """
    try:
        kind = methods.get(record["method"]).config
    except UserError as error:
        raise UserError(f"the method of the run is not there: {error.text}") from None
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in record["config"].items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"config.json of the run: {error}") from None
