"""A fitted model from disk."""

from pathlib import Path

import flax
import jax
import jax.numpy as jnp

from imvad_jax import methods
from imvad_jax.data.decode import Reader
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.model import store
from imvad_jax.model.model import Model
from imvad_jax.training import checkpoint
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.record import NAME, config_of

# What building a detector raises of a configuration that none can have.
_UNFIT = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, MemoryError)


def load(directory: str | Path, parallel: Parallel | None = None) -> Model:
    """The fitted model that `Model.save` or a run (its `--workdir`) wrote.

    Args:
      directory: What was given to `save`, or the directory of a finished run of one category.
      parallel: The devices that it works on; None: all of this machine.

    Raises:
      UserError: no fitted model there, one of a newer version, or a damaged one.
    """
    directory = Path(directory).expanduser()
    record = methods.with_newer_fields(store.read(directory))
    config = config_of(record, directory)
    try:
        detector, tiling = methods.make(record["method"], config), Tiling.of_record(record)
    except _UNFIT as error:
        reason = error.text if isinstance(error, UserError) else error
        raise UserError(f"{directory / NAME}: {reason}") from None
    model = Model(
        record["method"],
        detector,
        checkpoint.load_variables(directory),
        preset=record.get("preset") or "",
        overrides=record.get("overrides") or {},
        seed=record.get("seed") or 0,
        weights=record.get("weights"),
        notes=tuple(record.get("notes", ())),
        fitted=True,
        tiling=tiling,
        reader=Reader.of_record(record),
        calibration=store.read_thresholds(directory, record),
        ranges=store.read_ranges(record),
        record=record,
        parallel=parallel,
    )
    _check_variables(model, directory)
    return model


def _check_variables(model: Model, directory: Path) -> None:
    """Raises UserError where the variables are not those of the detector that the record names."""
    image = jax.ShapeDtypeStruct((1, model.input_size, model.input_size, 3), jnp.float32)
    try:
        jax.eval_shape(model.detector.apply, model.variables, image)
    except (flax.errors.FlaxError, *_UNFIT) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{directory / NAME}: the record does not match its variables ({reason}); expected "
            f"those of {model.title} as it is set there"
        ) from None
