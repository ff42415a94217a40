"""Settings that a resumed run keeps although they affect its results only by rounding."""

import dataclasses
from collections.abc import Mapping

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.runs.specs import Cell

FIELD = "convolution"


def with_its_convolution(cell: Cell, stored: Mapping | None, fitted: bool) -> Cell:
    """The cell with the form of convolution that its run began with.

    So a training that was stopped ends bit by bit as it would have without.

    Args:
      cell: What is asked for.
      stored: The record of the run; None where it was not begun.
      fitted: Whether its training is over; then `--convolution` decides where it is given.

    Raises:
      UserError: another form is asked for than the training began with.
    """
    if stored is None:
        return cell
    began = methods.with_newer_fields(dict(stored))["config"].get(FIELD, "xla")
    asked = cell.config.convolution
    if asked == began or (fitted and FIELD in cell.overrides):
        return cell
    if FIELD in cell.overrides:
        raise UserError(
            f"--convolution={asked}: the run in {cell.run_dir} began with {began}; omit the flag "
            "to resume it, or choose another --workdir"
        )
    config = dataclasses.replace(cell.config, **{FIELD: began})
    return dataclasses.replace(cell, config=config)
