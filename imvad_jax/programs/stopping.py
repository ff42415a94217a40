"""Ctrl-C, SIGTERM and SIGHUP: one line says how to go on, and the status is 130 or 143.

Nothing is raised within the work: an exception in the middle of a compilation, and the teardown of
an interpreter whose devices are busy, may end in a segmentation fault. A thread is told of a
signal, since the main thread may compile for a minute. It ends the limit of the work, which is
asked between steps; a program without a limit exits at once, since partial files do not count.
A second Ctrl-C leaves at once, too.

This module imports little, so that the programs can be stopped while they start.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from imvad_jax.leaving import CHILD, leave

ANEW = "the same command begins anew"
GOES_ON = "the same command goes on"
ERROR = 2  # exit status of bad input
LAST = 5.0  # seconds for writing after the limit, after which the process ends whatever it does

_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
_BY_TERMINAL, _BY_OTHERS = 128 + signal.SIGINT, 128 + signal.SIGTERM

_told: int | None = None  # the exit status that the first signal asks for
_limit: Any = None  # a `training.limit.Limit`, which is not imported here
_how = ANEW
_listener: threading.Thread | None = None


def told() -> int | None:
    """The exit status of a process that was told to end; None if it was not."""
    return _told


def listen() -> None:
    """From now on signals end this process in order. To be called once, by the main thread.

    What was ignored when the process was started, as by nohup, stays ignored.
    """
    global _listener
    if _listener is not None:
        return
    received, telling = socket.socketpair()
    telling.setblocking(False)
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            child = number == signal.SIGINT and CHILD in os.environ
            signal.signal(number, signal.SIG_IGN if child else lambda number, frame: None)

    def wait(_: socket.socket) -> None:
        while number := received.recv(1):
            with contextlib.suppress(Exception):  # the next signal has to be heard
                _take(number[0])

    _listener = threading.Thread(target=wait, args=(telling,), daemon=True)  # keeps it open
    _listener.start()


def watch(limit) -> None:
    """From now on a signal ends this `training.limit.Limit`, which the work asks between its steps.

    Signals are left alone where somebody else started the process.
    """
    global _limit
    _limit = limit


def goes_on() -> None:
    """This program keeps what it has finished: the same command goes on after it was ended."""
    global _how
    _how = GOES_ON


def _take(number: int) -> None:
    """A signal has come."""
    global _told
    by_terminal = number == signal.SIGINT
    if number not in _SIGNALS:
        return
    if _told is not None:
        return _leave("left at once", _told) if by_terminal else None
    _told = _BY_TERMINAL if by_terminal else _BY_OTHERS
    what = "interrupted" if by_terminal else "told to end"
    if _limit is None:
        _leave(what, _told)
    again = "; Ctrl-C again leaves at once" if by_terminal else ""
    last = LAST / 2  # before the program that waits for this one loses patience
    if CHILD not in os.environ:
        last = LAST
        log(f"{what}: finishing what ends soon{again}")
    timer = threading.Timer(_limit.grace + last, _leave, ["left before its step ended", _told])
    timer.daemon = True
    timer.start()
    _limit.end_soon(_told)


def _leave(what: str, status: int) -> NoReturn:
    how = _how if _limit is None else GOES_ON
    log(f"{what}: what is finished is written, nothing is half written; {how}")
    leave(status)


def log(line: str) -> None:
    """A line on stderr, whatever other threads hold; on a terminal below the bar that is shown."""
    with contextlib.suppress(Exception):
        start = "\n" if os.isatty(2) else ""
        os.write(2, f"{start}{line}\n".encode())


def wait_to_leave() -> None:
    """Returns at once unless this process is about to leave, with the line that was written."""
    if _told is not None and _limit is None:
        threading.Event().wait()


def closing(status: int | None) -> int | None:
    """The exit status of a program that ended with `status`; leaves if it was told to end.

    What ended in time although it was interrupted is finished, and yet what a shell would do next
    is not wanted. SIGTERM asks what is left: nothing, and the status is 0.
    """
    wait_to_leave()
    if _told is None:
        # All is done, and only the teardown is left.
        for number in _SIGNALS if _listener is not None and not _several_hosts() else ():
            signal.signal(number, signal.SIG_IGN)
        return status
    if not status and _told == _BY_TERMINAL:
        log("interrupted, and all was finished in time; the same command finds it done")
    if status == ERROR:  # perhaps of a child that was told, too
        log(f"told to end; {GOES_ON}")
    status = _told if status == ERROR or _told == _BY_TERMINAL else status
    if not _several_hosts():
        leave(status or 0)
    return status


def _several_hosts() -> bool:
    """Whether others would miss this process: its teardown tells them."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()
