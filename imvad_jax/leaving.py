"""Ends a process at once, without the interpreter's teardown and without leaving anything behind.

Teardown while devices still compile or compute may crash with a segmentation fault. A process that
leaves at once runs no `finally` blocks, so whatever must be undone, such as temporary files and
child processes, is registered here while it exists.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

CHILD = "IMVAD_JAX_CHILD"  # in the environment of a program of ours that another one tells to end
PATIENCE = 2.0  # seconds for undoing and flushing; a pipe that nobody reads would take for ever

starting = threading.Lock()  # held while a child is started, so that none is missed
_undo: dict[object, Callable[[], object]] = {}
_leaves = threading.Event()  # this process ends within `PATIENCE`


@contextlib.contextmanager
def undone_by(undo: Callable[[], object]) -> Iterator[None]:
    """Within it, a process that leaves at once calls `undo`, in a thread of its own."""
    key = object()
    _undo[key] = undo
    try:
        yield
    finally:
        del _undo[key]


@contextlib.contextmanager
def child(
    command: Sequence[str],
    kill: Callable[[subprocess.Popen], object] = subprocess.Popen.kill,
    **options,
) -> Iterator[subprocess.Popen]:
    """A child process that does not outlive one that leaves at once, which calls `kill` with it.

    `options` are those of `subprocess.Popen`, whose context this is, too.
    """
    key = object()
    with starting:
        process = subprocess.Popen(command, **options)
        _undo[key] = partial(kill, process)
    try:
        with process:
            yield process
    finally:
        if _leaves.is_set():  # the child was killed, and what waited for it must not go on
            time.sleep(2 * PATIENCE)
        del _undo[key]


def kill_group(process: subprocess.Popen) -> None:
    """Kills a child that was started with `start_new_session`, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(
    command: Sequence[str],
    input: str | None = None,
    kill: Callable[[subprocess.Popen], object] = subprocess.Popen.kill,
    **options,
) -> subprocess.CompletedProcess:
    """As `subprocess.run`, for a `child`.

    Args:
      command: The command line.
      input: What the child reads from its standard input; None: it inherits this process's.
      kill: Ends the child, as for `child`.
      options: Of `subprocess.Popen`.
    """
    given = {} if input is None else {"stdin": subprocess.PIPE}
    with child(command, kill, **given, **options) as process:
        try:
            out, errors = process.communicate(input)
        except BaseException:
            kill(process)
            raise
    if process.returncode == -signal.SIGINT:  # a terminal's Ctrl-C is for this process, too
        time.sleep(1)
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def leave(status: int) -> NoReturn:
    """Ends this process; whatever its threads do is cut off. Never returns."""

    _leaves.set()

    def tidy() -> None:
        starting.acquire(timeout=PATIENCE / 2)  # and never released
        for undo in reversed(list(_undo.values())):
            with contextlib.suppress(Exception):
                undo()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    thread = threading.Thread(target=tidy, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    os._exit(status)
