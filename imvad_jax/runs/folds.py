"""Decides whether the threshold of a run comes from folds or from held-out images."""

from imvad_jax.data.category import CategoryData
from imvad_jax.data.holdout import number_of_folds
from imvad_jax.runs.specs import Cell
from imvad_jax.training import checkpoint
from imvad_jax.training.record import read_record

KEY = "folds"  # in records; missing in those from before folds existed


def find_folds(cell: Cell, data: CategoryData) -> int:
    """The folds that set the threshold of a cell; 0: a share of its images is held out, or none.

    A run that is fitted keeps what it was fitted with: the images that it held out are known by
    not being named among those fitted on.
    """
    if data.held_out is not None or cell.checkpoint or not cell.holdout:
        return 0
    stored = read_record(cell.run_dir)
    if stored is not None and checkpoint.has_checkpoint(cell.run_dir):
        return stored.get(KEY) or 0
    if not cell.may_fold:
        return 0
    return number_of_folds(cell.detector.phases, len(data.train_names), cell.holdout)
