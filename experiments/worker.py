"""A process that makes cells of the table: one a line on standard input, one answer a line.

Started by experiments.table, one for each accelerator. Its own output is a log; standard output
carries the answers alone.
"""

import json
import os
import queue
import sys
import threading
import traceback
from functools import partial

from experiments import cell, devices, program, time_limit
from experiments.tasks import Task, mark_failed
from imvad_jax import methods
from imvad_jax.data.reading import Reading
from imvad_jax.errors import UserError
from imvad_jax.marks import is_ours
from imvad_jax.reporting.grid import ERROR
from imvad_jax.training.limit import NO_LIMIT, Limit, Stopped
from imvad_jax.training.timing import Timings

READY = {"ready": True}


def make_cell(task: Task, parallel, say=print, limit: Limit = NO_LIMIT) -> str | None:
    """Makes one cell by the code of experiments.run; returns the error of one that failed.

    The error is marked in the run directory. Only KeyboardInterrupt, SystemExit and Stopped pass.
    """
    say(f"== {methods.get(task.method).title}, {task.dataset}/{task.category}, seed {task.seed}")
    try:
        plan = cell.Plan(task.method, task.preset, task.overrides, task.config, task.seed,
                         task.weights, task.command, tiling=task.tiling,
                         reading=Reading(**task.reading))  # fmt: skip
        timings = Timings()
        data = cell.open_data(plan, task.dataset, task.data_dir, task.category, task.decoded_dir,
                              timings, say, limit)  # fmt: skip
        if not len(data.test):
            raise UserError(f"{task.dataset}/{task.category}: no test images to evaluate")
        options = cell.Options(**task.options, results_dir=task.results_dir)
        cell.run_cell(plan, data, task.run_dir, parallel, options, timings, say, limit)
    except Stopped:
        raise
    except UserError as error:
        return _failed(task, " ".join(str(error).split()), None, say)
    except Exception as error:  # whatever it is, the other cells go on
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
        return _failed(task, text, traceback.format_exc(), say)
    if is_ours(task.run_dir / ERROR):
        (task.run_dir / ERROR).unlink()
    return None


def _failed(task: Task, error: str, trace: str | None, say) -> str:
    say(trace or f"error: {error}")
    mark_failed(task, error, trace)
    return error


def main() -> None:
    """The program: answers `{"ready": true}`, then `{"path", "error", "stopped"}` per task."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else prints, prints to the log
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen():
        """Ends the process when the one that started it is gone, however busy this one is."""
        # Not sys.stdin: a thread that waits in it would block the interpreter's shutdown.
        with os.fdopen(os.dup(0), "rb", buffering=0) as file:
            pending = b""
            while chunk := file.read(1 << 16):
                *whole, pending = (pending + chunk).split(b"\n")
                for line in whole:
                    lines.put(line.decode())
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    limit = time_limit.start_limit()
    parallel = devices.start_jax()
    answers.write(json.dumps(READY) + "\n")
    say = partial(print, flush=True)
    while True:
        task = Task.from_json(lines.get())
        limit.restart(task.seconds_left)
        error = stopped = None
        try:
            error = make_cell(task, parallel, say, limit)
        except Stopped as stop:
            stopped = str(stop)
            say(stopped)
        answers.write(json.dumps({"path": task.path, "error": error, "stopped": stopped}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    program.run(main)
