"""Worker processes, each given one method at a time; a worker that dies is replaced."""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from imvad_jax import leaving
from imvad_jax.errors import UserError
from imvad_jax.files import not_written
from imvad_jax.runs.tasks import Task, mark_failed
from imvad_jax.training.limit import NO_LIMIT, Limit


@dataclasses.dataclass(frozen=True)
class Event:
    """A cell that a worker has begun (`seconds` is None) or ended, perhaps with an error.

    `stopped` says why one is not finished, though nothing is wrong with it.
    """

    task: Task
    seconds: float | None = None
    error: str | None = None
    stopped: str | None = None


_ENDED = object()  # a worker's last event
_WITH_ITS_WORKER = "stopped with its worker; the same command goes on"


def by_method(tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks of each method, in order: those share compiled programs."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.method, []).append(task)
    return list(groups.values())


class Pool:
    """Runs tasks in worker processes; a worker that dies is replaced, its cell is marked.

    Args:
      command: The command line of a worker.
      environments: Environment of each worker, on top of this process's.
      logs: Log file of each worker; it is appended to.
    """

    def __init__(self, command: Sequence[str], environments: Sequence[dict], logs: Sequence[Path]):
        self._command = list(command)
        self._places = list(zip(environments, logs, strict=True))
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False

    def end_soon(self) -> None:
        """Tells the workers that there is no time left."""
        for process in list(self._processes):
            process.terminate()

    def run(
        self,
        tasks: Sequence[Task],
        on_event: Callable[[Event | None], None],
        limit: Limit = NO_LIMIT,
        refuse: Callable[[Task], str | None] = lambda task: None,
    ) -> None:
        """Runs all tasks; `on_event` is called in this thread, with None when a second passed.

        Args:
          limit: What is left of it, a worker is given with each task.
          refuse: Says why a task is not to be begun, None if it is.

        Raises:
          UserError: a worker did not start.
        """
        self._limit, self._refuse = limit, refuse
        groups: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()
        for group in by_method(tasks):
            groups.put(group)
        threads = [
            threading.Thread(target=self._serve, args=(*place, groups), daemon=True)
            for place in self._places
        ]
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill)
            stack.enter_context(leaving.undone_by(self._kill))
            for thread in threads:
                thread.start()
            ended = 0
            while ended < len(threads):
                try:
                    event = self._events.get(timeout=1)
                except queue.Empty:
                    on_event(None)
                    continue
                if event is _ENDED:
                    ended += 1
                elif isinstance(event, UserError):
                    raise event
                else:
                    on_event(event)

    def _kill(self) -> None:
        self._stopped = True
        for process in list(self._processes):
            process.kill()

    @property
    def _over(self) -> bool:
        """Whether the workers are told to end."""
        return self._limit.left <= 0 or self._limit.ended_by_signal

    def _serve(self, environment: dict, log: Path, groups: queue.SimpleQueue) -> None:
        """One place: a worker, again and again, until no method is left."""
        worker = None
        try:
            while not self._stopped:
                try:
                    group = groups.get_nowait()
                except queue.Empty:
                    return
                for task in group:
                    if self._stopped:
                        return
                    if reason := self._refuse(task):
                        self._events.put(Event(task, 0.0, stopped=reason))
                        continue
                    worker = worker or self._start(environment, log)
                    if worker is None and self._over:
                        self._events.put(Event(task, 0.0, stopped=_WITH_ITS_WORKER))
                        continue
                    if worker is None:
                        return
                    worker = self._one(worker, task, log)
        finally:
            if worker is not None:
                self._end(worker)
            self._events.put(_ENDED)

    def _start(self, environment: dict, log: Path) -> subprocess.Popen | None:
        """A worker that is ready; None if it does not get so far, and then all is over."""
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = open(log, "ab")  # noqa: SIM115 - closed below
        except OSError as error:
            self._events.put(not_written(log, error))
            return None
        with file, leaving.starting:
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file,
                env={**os.environ, leaving.CHILD: "1", **environment}, text=True,
            )  # fmt: skip
            self._processes.add(process)
        if _answer(process).get("ready"):
            return process
        if process.wait() == -signal.SIGINT:
            time.sleep(1)  # this process is told by the same Ctrl-C
        if self._over:  # it was told to end before it could say anything
            self._end(process)
            return None
        reason = _why(process.wait(), log)
        self._events.put(UserError(f"a worker did not start: {reason} (see {log})"))
        return None

    def _end(self, process: subprocess.Popen) -> None:
        """Its standard input closes, and it goes."""
        assert process.stdin and process.stdout  # pipes
        process.stdin.close()
        process.wait()
        process.stdout.close()
        self._processes.discard(process)

    def _one(self, worker: subprocess.Popen, task: Task, log: Path) -> subprocess.Popen | None:
        """Gives a task to a worker and waits for its answer; returns the worker if it lives."""
        self._events.put(Event(task))
        start = time.perf_counter()
        try:
            left = self._limit.left
            given = dataclasses.replace(task, seconds_left=left if left < float("inf") else None)
            assert worker.stdin  # a pipe
            worker.stdin.write(given.to_json() + "\n")
            worker.stdin.flush()
            answer = _answer(worker)
        except OSError:  # it is gone, and its input with it
            answer = {}
        error = answer.get("error")
        if dead := not answer:
            status = worker.wait()
            if self._stopped:
                return None
            self._processes.discard(worker)
            if self._over:
                answer = {"stopped": _WITH_ITS_WORKER}
            else:
                error = _why(status, log)
                mark_failed(task, error)
        seconds = time.perf_counter() - start
        self._events.put(Event(task, seconds, error, answer.get("stopped")))
        return None if dead else worker


def _answer(worker: subprocess.Popen) -> dict:
    """The next line that a worker writes; empty if it has ended, perhaps within the line."""
    assert worker.stdout  # a pipe
    try:
        return json.loads(worker.stdout.readline() or "{}")
    except ValueError:
        return {}


def _why(status: int, log: Path) -> str:
    """Why a process ended, in words."""
    if status >= 0:
        reason = f"the process ended with status {status}"
    else:
        reason = f"the process was killed by {signal.Signals(-status).name}"
        if -status == signal.SIGKILL:
            reason += ", as it is when memory runs out"
    return f"{reason}; its last lines: {last_lines(log)}"


def last_lines(log: Path, count: int = 2) -> str:
    """The end of a log on one line."""
    try:
        text = log.read_bytes()[-4096:].decode(errors="replace")
    except OSError:
        return ""
    return " | ".join(line.strip() for line in text.splitlines()[-count:])
