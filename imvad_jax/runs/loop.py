"""Chooses the training loop of a run: as it started, as requested, or by what fits."""

from collections.abc import Mapping

from imvad_jax.data.category import CategoryData
from imvad_jax.errors import UserError
from imvad_jax.methods import Detector
from imvad_jax.runs import memory
from imvad_jax.runs.specs import Cell
from imvad_jax.training.loops import AUTO, HOST, choose_loop
from imvad_jax.training.parallel import Parallel

KEY = "training_loop"  # of a record


def find_loop(
    cell: Cell,
    detector: Detector,
    data: CategoryData,
    parallel: Parallel,
    *,
    stored: Mapping | None,
    pictures: dict | None = None,
) -> str | None:
    """`host` or `device`; None for a method that is not trained.

    A run goes on by the loop that it began with, so that it ends as it would have without a stop:
    two compiled programs round differently.

    Args:
      cell: What is asked for.
      detector: Unfitted.
      data: Its images.
      parallel: The devices of the run.
      stored: The record of the run where it began before; records of before there were two loops
        are of the host's.
      pictures: Arrays that the training is given besides.

    Raises:
      UserError: another loop is asked for than the run began with, or one that cannot take these
        images.
    """
    if "gradient" not in detector.phases:
        return None
    wanted = cell.options.training_loop
    if stored is not None:
        began = stored.get(KEY, HOST)
        if wanted not in (AUTO, began):
            raise UserError(
                f"--training_loop={wanted}: the run in {cell.run_dir} began with {began}; omit "
                "the flag to resume it, or choose another --workdir"
            )
        wanted = began
    needed = sum(memory.estimate(detector, data, parallel, pictures).values())
    training = parallel.dividing(detector.config.batch_size)
    return choose_loop(wanted, detector, data.train, training, needed=needed)
