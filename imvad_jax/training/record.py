"""The record beside a fitted detector, `config.json`: which method it is, and how it is set."""

from pathlib import Path
from typing import Any

from imvad_jax import methods, sealed
from imvad_jax.errors import UserError
from imvad_jax.training.record_check import NewerError, check_config, check_record

NAME = "config.json"
FORMAT = 1  # of the record; to be raised where older programs would misread a newer one


def read_record(run_dir: str | Path) -> dict | None:
    """The config.json of a run directory, or None if it holds no run.

    Its digest is compared, where it has one, and its fields are looked at (`record_check`).

    Raises:
      UserError: the file is damaged, or a newer program wrote it.
    """
    path = Path(run_dir) / NAME
    if not path.is_file():
        return None
    try:
        record = sealed.read(path)
        check_record(record, FORMAT)
        return record
    except NewerError as error:
        raise UserError(
            f"{path}: written by a newer imvad_jax ({error}); this one reads up to {FORMAT}"
        ) from None
    except sealed.DamagedError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, OSError) as error:
        raise UserError(
            f"{path}: not a run's record ({error}); expected that of imvad run"
        ) from None


def config_of(record: dict, run_dir: str | Path | None = None) -> methods.DetectorConfig:
    """The configuration stored in a run's record.

    Args:
      record: As `read_record` gives it.
      run_dir: Where it lies, for messages.

    Raises:
      UserError: it does not fit, or the package of the method is not there.
    """
    where = Path(run_dir) / NAME if run_dir else "config.json of the run"
    try:
        kind = methods.get(record["method"]).config
    except UserError as error:
        raise UserError(f"{where}: the method of the run is not there: {error.text}") from None
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in record["config"].items()
    }
    try:
        check_config(values, kind)
        return kind(**values)
    except (TypeError, ValueError) as error:
        text = error.text if isinstance(error, UserError) else error
        raise UserError(f"{where}: {text}") from None
