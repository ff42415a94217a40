"""A process that makes cells of the table: one a line on standard input, one answer a line.

Started by imvad table (`entry.py`), one for each accelerator. Its own output is a log;
standard output carries the answers alone.
"""

import json
import os
import queue
import sys
import threading

from imvad_jax.errors import say
from imvad_jax.programs import devices, time_limit
from imvad_jax.runs.make_task import make_task
from imvad_jax.runs.specs import Work
from imvad_jax.runs.tasks import Task
from imvad_jax.training.limit import Stopped

READY = {"ready": True}


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
    while True:
        task = Task.from_json(lines.get())
        limit.restart(task.seconds_left)
        error = stopped = None
        try:
            error = make_task(task, Work(parallel=parallel, log=say, limit=limit))
        except Stopped as stop:
            stopped = str(stop)
            say(stopped)
        answers.write(json.dumps({"path": task.path, "error": error, "stopped": stopped}) + "\n")
        sys.stdout.flush()
