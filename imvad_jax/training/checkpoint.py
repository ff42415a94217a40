"""Fitted variables on disk, with orbax: atomic, without pickles, for any number of devices."""

import contextlib
import itertools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imvad_jax import sealed
from imvad_jax.errors import UserError, say
from imvad_jax.files import REFUSALS, not_written
from imvad_jax.owned import remove_checkpoint, write_own
from imvad_jax.training import hosts, record, verified

NAME = "checkpoint"  # of the folder, unless the record beside it names another
FIELD = "checkpoint"  # of that record; and "checkpoints", all folders that are its own
_NAMES = re.compile(rf"{NAME}(-\d+)?")


def _orbax():
    """The library, imported with the first checkpoint: it takes as long as jax itself."""
    import orbax.checkpoint

    return orbax.checkpoint


def save_variables(run_dir: str | Path, variables: Mapping, name: str = NAME) -> None:
    """Writes a fitted detector's variables to the folder `name`; waits until they are there.

    They are saved as host arrays, so that they restore on any number of devices, with a digest of
    each.

    Raises:
      UserError: something is there already; it stays as it is.
    """
    path = Path(run_dir).resolve() / name
    if hosts.is_first():
        for left in path.parent.glob(f"{name}.orbax-checkpoint-tmp*"):  # by a killed run
            remove_checkpoint(left)
    hosts.wait("incomplete checkpoint removed")
    for left in (path, path.with_name(f"{name}.orbax-checkpoint-tmp")):  # orbax would delete them
        if os.path.lexists(left):
            raise UserError(
                f"{left}: is there already and is no checkpoint of this run; it is left as it is: "
                "move it, or choose another directory"
            )
    hosts.wait("place for the checkpoint looked at")
    with _naming(path):
        checkpointer = _orbax().StandardCheckpointer()
        arrays = jax.tree.map(np.asarray, jax.device_get(variables))
        checkpointer.save(path, arrays, custom_metadata=verified.metadata(arrays))
        checkpointer.wait_until_finished()
        checkpointer.close()


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Says of a checkpoint that cannot be written which one it is; raises `files.NotWritten`."""
    _shorten_log()
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from None
    except ValueError as error:  # tensorstore's own
        code = _code_of(error)
        if code is None:
            raise
        raise not_written(path, OSError(code, os.strerror(code))) from None


def _code_of(error: BaseException) -> int | None:
    """The number of the error of a disk that tensorstore speaks of; None where it is another."""
    return next((code for code in REFUSALS if os.strerror(code) in str(error)), None)


def _is_kept(record: logging.LogRecord) -> bool:
    """Keeps tracebacks of a full disk from the log of orbax: they are raised as well."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or _code_of(error) is None


def _shorten_log() -> None:
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_kept)  # once, however often it is called


def save_model(directory: str | Path, kept: dict, variables: dict) -> None:
    """Writes variables and the record `kept` to a directory, in place of those saved there before.

    The record is what makes them valid: it names their folder, and is replaced in one step when the
    folder is complete. Whatever ends the process before leaves the earlier model as it was; what is
    left of the new one goes when the next is saved.

    Raises:
      OSError: it cannot be written.
    """
    directory = Path(directory)
    stored = record.read_record(directory) or {}
    used = _folder(directory).name
    for left in set(stored.get("checkpoints", ())) - {used}:
        if _NAMES.fullmatch(left):
            _remove(directory, left)
    taken = (f"{NAME}-{number}" for number in itertools.count(2))
    name = next(n for n in itertools.chain([NAME], taken) if not os.path.lexists(directory / n))

    def write(about: dict, current: str, *own: str) -> None:
        value = about | {FIELD: current, "checkpoints": sorted({current, *own})}
        text = sealed.dumps(value)
        write_own(directory / record.NAME, lambda file: file.write(text.encode()))

    earlier = has_checkpoint(directory)
    write(stored, used, name) if earlier else write(kept, name)
    try:
        save_variables(directory, variables, name)
        if earlier:
            write(kept, name, used)
    except BaseException:
        if not earlier or _folder(directory).name != name:
            _remove(directory, name)
        raise
    if earlier:
        _remove(directory, used)
        write(kept, name)


def _remove(directory: Path, name: str) -> None:
    for path in (directory / name, *directory.glob(f"{name}.orbax-checkpoint-tmp*")):
        remove_checkpoint(path)


def has_checkpoint(run_dir: str | Path) -> bool:
    """Whether `run_dir` holds a complete checkpoint."""
    return (_folder(run_dir) / verified.METADATA).is_file()


def load_variables(run_dir: str | Path) -> dict:
    """Reads what `save_variables` wrote, as host arrays; each is compared with its digest.

    Raises:
      UserError: there is no checkpoint, it cannot be read, or it is damaged.
    """
    path = _folder(run_dir).resolve()
    if not has_checkpoint(run_dir):
        raise UserError(f"{path}: no checkpoint there; expected one written by imvad run")
    try:
        with _orbax().StandardCheckpointer() as checkpointer:
            return verified.restore(path, lambda: checkpointer.restore(path))
    except verified.DamagedError as error:
        raise UserError(
            f"{path}: the checkpoint is damaged ({error}); take it from a copy, or fit again in "
            "another directory"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def _folder(run_dir: str | Path) -> Path:
    """Where the checkpoint lies: the record names it where it was replaced by a newer one."""
    try:
        name = (record.read_record(run_dir) or {}).get(FIELD)
    except UserError:  # the reader of the record reports what is wrong with it
        name = None
    return Path(run_dir) / (name if isinstance(name, str) and _NAMES.fullmatch(name) else NAME)


class TrainingCheckpoints:
    """Checkpoints of a training in progress: every `every` epochs, the newest `keep` kept.

    `log` is told, in a line, of one that is damaged.
    """

    def __init__(
        self,
        run_dir: str | Path,
        every: int = 1,
        keep: int = 2,
        log: Callable[[str], object] = say,
    ):
        self.every, self._keep, self._log = every, keep, log
        directory = Path(run_dir).resolve() / "training"
        options = _orbax().CheckpointManagerOptions(max_to_keep=keep, create=True)
        try:
            self._manager = _orbax().CheckpointManager(directory, options=options)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # some fields' names
            raise UserError(
                f"{directory}: the {verified.METADATA} of a checkpoint is damaged "
                f"({str(error)[:150]}); move that checkpoint away to resume from an older one"
            ) from None

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
        # Also of an earlier epoch: it goes on behind us.
        with _naming(Path(self._manager.directory)):
            args = _orbax().args.StandardSave(tree)
            self._manager.save(epoch, args=args, custom_metadata=verified.metadata(tree))

    def resume(self, template: Any) -> tuple[int, Any]:
        """The newest epoch whose checkpoint is whole, and its state; 0 and `template` without any.

        The state has the structure of `template`, and host arrays.

        Damaged ones are set aside, as `training/EPOCH.damaged`, once an older one is read: the
        training writes to their names again.

        Raises:
          UserError: all are damaged, one cannot be read, or is of another network; nothing is
            touched.
        """
        damaged: dict[int, str] = {}
        for epoch in sorted(self._manager.all_steps(), reverse=True):
            try:
                state, problem = self._read(epoch, template), ""
            except verified.DamagedError as error:
                state, problem = None, str(error)
            if not hosts.any_of(bool(problem)):
                self._set_aside(damaged, epoch)
                self._remove_old()
                return epoch, state
            damaged[epoch] = problem or "as another host reads it"
        if not damaged:
            return 0, template
        newest = max(damaged)
        raise UserError(
            f"{self._manager.directory}: all checkpoints are damaged (of epoch {newest}: "
            f"{damaged[newest]}); take the directory from a copy, or train anew in another one"
        )

    def _read(self, epoch: int, template: Any) -> Any:
        """The state saved after `epoch`, in the structure of `template`, as host arrays.

        Raises:
          verified.DamagedError: it is damaged.
          UserError: it cannot be read, or is of another network.
        """
        leaves, structure = jax.tree.flatten(template)
        try:
            tree = verified.restore(
                Path(self._manager.directory) / str(epoch),
                lambda: self._manager.restore(epoch, args=_orbax().args.StandardRestore()),
            )
        except OSError as error:
            raise UserError(
                f"{self._manager.directory}: the checkpoint of epoch {epoch} cannot be read "
                f"({error.strerror or error})"
            ) from None
        found = [tree[name] for name in sorted(tree)]
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in leaves]:
            raise UserError(
                f"{self._manager.directory}: the checkpoint of epoch {epoch} is of another network"
            )
        return jax.tree.unflatten(structure, found)

    def _set_aside(self, damaged: dict[int, str], good: int) -> None:
        if not damaged:
            return
        for epoch, problem in damaged.items():
            if hosts.is_first():
                path = Path(self._manager.directory) / str(epoch)
                names = (path.with_name(f"{epoch}.damaged{n or ''}") for n in itertools.count())
                aside = next(name for name in names if not os.path.lexists(name))
                os.rename(path, aside)
                self._log(
                    f"{path}: the checkpoint is damaged ({problem}); it is set aside as "
                    f"{aside.name}, and the training goes on from epoch {good}"
                )
        hosts.wait("damaged checkpoints set aside")
        self._manager.reload()

    def _remove_old(self) -> None:
        """Orbax does so when it saves, and a process that was killed may have saved its last."""
        for epoch in sorted(self._manager.all_steps())[: -self._keep]:
            self._manager.delete(epoch)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with _naming(Path(self._manager.directory)):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits and frees the manager's threads."""
        self._manager.close()
