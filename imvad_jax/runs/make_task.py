"""Runs one cell of a table and catches whatever goes wrong."""

import traceback

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.locks import Held
from imvad_jax.marks import is_ours
from imvad_jax.reporting.grid import ERROR
from imvad_jax.runs.cell import run_cell
from imvad_jax.runs.specs import Work
from imvad_jax.runs.tasks import Task, mark_failed
from imvad_jax.training.limit import Stopped


def make_task(task: Task, work: Work) -> str | None:
    """Makes one cell of a table as a run does; returns the error of one that failed.

    The error is marked in the run directory, unless another process works there. Only
    KeyboardInterrupt, SystemExit, Stopped and BrokenPipeError (nobody reads the output) pass.
    """
    work.log(
        f"== {methods.get(task.method).title}, {task.dataset}/{task.category}, seed {task.seed}"
    )
    try:
        run_cell(task.cell, work)
    except (Stopped, BrokenPipeError):
        raise
    except Held as held:  # nothing is wrong with the cell, and the directory is the other's
        work.log(f"error: {held.text}")
        raise Stopped(held.text) from None
    except UserError as error:
        return _failed(task, " ".join(error.text.split()), None, work.log)
    except Exception as error:  # whatever it is, the other cells go on
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return _failed(task, text, traceback.format_exc(), work.log)
    if is_ours(task.run_dir / ERROR):
        (task.run_dir / ERROR).unlink()
    return None


def _failed(task: Task, error: str, trace: str | None, log) -> str:
    log(trace or f"error: {error}")
    mark_failed(task, error, trace)
    return error
