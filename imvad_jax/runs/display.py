"""The display of a table in progress: a bar on a terminal, one line per cell in a log."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from imvad_jax import methods
from imvad_jax.errors import escaped, say
from imvad_jax.reporting.grid import read_cell
from imvad_jax.reporting.metric_names import format_value
from imvad_jax.runs.tasks import Task
from imvad_jax.runs.time_left import TimeLeft, format_seconds
from imvad_jax.runs.worker_pool import last_lines
from imvad_jax.training.limit import Limit


class Display:
    """Which cell is made, how many are done, how long the rest will take."""

    def __init__(self, waiting: Sequence[Task], workers: int, logs: Sequence[Path]):
        self._waiting = list(waiting)
        self._now: dict[str, Task] = {}
        self._logs = logs
        self.left = TimeLeft(workers)
        self._done, self._total = 0, len(waiting)
        self.stopped: list[Task] = []  # for which there was no time
        self._bar = None
        if sys.stderr.isatty():
            form = "{n_fmt}/{total_fmt} cells |{bar:20}| {elapsed}, {desc}"
            self._bar = tqdm(total=self._total, bar_format=form, dynamic_ncols=True)

    def begin(self, task: Task) -> None:
        """A cell is begun."""
        self._now[task.path] = task
        self.tick()

    def stop(self, task: Task, reason: str) -> None:
        """A cell is not finished, since there is no time left."""
        self._now.pop(task.path, None)
        self._waiting.remove(task)
        self.stopped.append(task)
        self._log(f"{task.name}: {reason}")

    def refuse(self, task: Task, limit: Limit) -> str | None:
        """Why a cell is not begun; None if it is. A training counts by its next epoch."""
        trained = "gradient" in methods.get(task.method).detector.phases
        known = None if trained else self.left.known(task.method)
        if limit.ended_by_signal or limit.left <= 0 or not limit.fits(known or 0):
            needs = f" and needs about {format_seconds(known)}" if known else ""
            return f"not begun{needs}; {format_seconds(max(limit.left, 0))} are left"
        return None

    def end(self, task: Task, seconds: float, error: str | None) -> None:
        """A cell is finished, or has failed."""
        self._now.pop(task.path, None)
        self._waiting.remove(task)
        self._done += 1
        self.left.add(task.method, seconds)
        found = f"FAILED: {error}" if error else self._figures(task)
        left = format_seconds(self._time_left())
        self._log(f"[{self._done}/{self._total}] {task.name}: {found}; {seconds:.0f} s; "
                  f"{left} left")  # fmt: skip
        if self._bar is not None:
            self._bar.update()
        self.tick()

    def tick(self) -> None:
        """Shows what the workers do."""
        if self._bar is None:
            return
        names = ", ".join(task.name for task in self._now.values())
        doing = last_lines(self._logs[0], 1) if len(self._logs) == 1 else ""
        left = format_seconds(self._time_left())
        self._bar.set_description_str(escaped(f"{left} left; {names} {doing}".strip()))

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.set_description_str("")
            self._bar.close()

    def _time_left(self) -> float | None:
        return self.left.of([task.method for task in self._waiting])

    def _figures(self, task: Task) -> str:
        cell = read_cell(task.workdir, task.path)
        metrics = (cell and cell.metrics) or {}
        return f"image AUC {format_value(metrics.get('image_auroc'))}"

    def _log(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(escaped(text), file=sys.stderr)
        else:
            say(text)
