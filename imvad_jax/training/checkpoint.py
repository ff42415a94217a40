"""Fitted variables on disk, by orbax: atomic, free of pickles, of any number of devices."""

import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from imvad_jax.errors import UserError

NAME = "checkpoint"


def save_variables(run_dir: str | Path, variables: dict) -> None:
    """Writes a fitted detector's variables to `run_dir/checkpoint`; waits until they are there.

    They are saved as host arrays, so that they restore on any number of devices.
    """
    path = Path(run_dir).resolve() / NAME
    if path.exists():
        shutil.rmtree(path)
    checkpointer = ocp.StandardCheckpointer()
    checkpointer.save(path, jax.tree.map(np.asarray, jax.device_get(variables)))
    checkpointer.wait_until_finished()
    checkpointer.close()


def has_checkpoint(run_dir: str | Path) -> bool:
    """Whether `run_dir` holds a complete checkpoint."""
    return (Path(run_dir) / NAME / "_CHECKPOINT_METADATA").is_file()


def load_variables(run_dir: str | Path) -> dict:
    """Reads what `save_variables` wrote, as host arrays.

    Raises:
      UserError: there is no checkpoint, or it is damaged.
    """
    path = Path(run_dir).resolve() / NAME
    if not has_checkpoint(run_dir):
        raise UserError(f"{path}: no checkpoint there; expected one written by experiments.run")
    try:
        checkpointer = ocp.StandardCheckpointer()
        restored = checkpointer.restore(path)
        checkpointer.close()
        return jax.tree.map(np.asarray, restored)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: the checkpoint is damaged ({str(error)[:200]})") from None
