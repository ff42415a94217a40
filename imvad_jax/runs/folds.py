"""Decides whether the threshold of a run comes from folds or from held-out images."""

from imvad_jax.data.holdout import number_of_folds
from imvad_jax.runs.specs import Cell
from imvad_jax.training import checkpoint
from imvad_jax.training.record import read_record

KEY = "folds"  # in records; missing in those from before folds existed


def find_folds(cell: Cell, total: int) -> int:
    """The folds of a cell with so many good images; 0: a share is held out, or none.

    A run that is fitted keeps what it was fitted with: the images that it held out are known by
    not being named among those fitted on.
    """
    if cell.checkpoint or not cell.holdout:
        return 0
    stored = read_record(cell.run_dir)
    if stored is not None and checkpoint.has_checkpoint(cell.run_dir):
        return stored.get(KEY) or 0
    return number_of_folds(cell.detector.phases, total, cell.holdout) if cell.may_fold else 0
