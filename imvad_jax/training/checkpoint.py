"""Fitted variables on disk, by orbax: atomic, free of pickles, of any number of devices."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from imvad_jax.errors import UserError
from imvad_jax.training import hosts

NAME = "checkpoint"


def save_variables(run_dir: str | Path, variables: dict) -> None:
    """Writes a fitted detector's variables to `run_dir/checkpoint`; waits until they are there.

    They are saved as host arrays, so that they restore on any number of devices.
    """
    path = Path(run_dir).resolve() / NAME
    if hosts.is_first():
        # Also what a killed run left, of which orbax would warn.
        for pattern in (NAME, f"{NAME}.orbax-checkpoint-tmp*"):
            for left in path.parent.glob(pattern):
                shutil.rmtree(left)
    hosts.wait("incomplete checkpoint removed")
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


class TrainingCheckpoints:
    """Checkpoints of a training in progress: every `every` epochs, the newest `keep` kept."""

    def __init__(self, run_dir: str | Path, every: int = 1, keep: int = 2):
        self.every = every
        self._manager = ocp.CheckpointManager(
            Path(run_dir).resolve() / "training",
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def latest(self) -> int:
        """The newest epoch saved; 0 if there is none."""
        return self._manager.latest_step() or 0

    def save(self, epoch: int, state: Any, last: bool = False) -> None:
        """Saves the state after `epoch` (every so often, and the last), in the background."""
        if epoch % self.every and not last:
            return
        # Copies: the step that follows overwrites the donated state while orbax still writes.
        leaves = [np.array(leaf) for leaf in jax.device_get(jax.tree.leaves(state))]
        tree = {f"leaf{number:05}": leaf for number, leaf in enumerate(leaves)}
        self._manager.save(epoch, args=ocp.args.StandardSave(tree))

    def restore(self, epoch: int, template: Any) -> Any:
        """The state saved after `epoch`, in the structure of `template`, as host arrays.

        Raises:
          UserError: it is damaged, or of another shape.
        """
        leaves, structure = jax.tree.flatten(template)
        try:
            tree = self._manager.restore(epoch, args=ocp.args.StandardRestore())
            found = [np.asarray(tree[name]) for name in sorted(tree)]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{self._manager.directory}: the checkpoint of epoch {epoch} is damaged "
                f"({str(error)[:200]}); delete its directory to resume from an older one"
            ) from None
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in leaves]:
            raise UserError(
                f"{self._manager.directory}: the checkpoint of epoch {epoch} is of another network"
            )
        return jax.tree.unflatten(structure, found)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the manager's threads."""
        self._manager.close()
