"""`--time_limit`, and SIGTERM: what is finished is written, and the same command goes on."""

import os
import signal
import socket
import sys
import threading
import time

from absl import flags

from imvad_jax.programs import program
from imvad_jax.training.limit import GRACE, SIGNAL_STATUS, Limit, parse_seconds

_IMPORTED = time.monotonic()
_LAST = 5.0  # seconds for writing, after which the process ends whatever it does

_TIME_LIMIT = flags.DEFINE_string(
    "time_limit", None, "Nothing is begun that is not expected to end within this time, such as "
    "90s, 9m or 8h from the start of the program; what is finished is written, and the same "
    "command goes on. Exit status 75 where something is left to do. SIGTERM does the same (143).",
)  # fmt: skip


def start_limit() -> Limit:
    """The limit of this process, which SIGTERM shortens. To be called once, by the main thread.

    Signals are left alone where somebody else started the process.

    Raises:
      UserError: the flag names no time.
    """
    given = _TIME_LIMIT.value
    limit = Limit()
    if given is not None:
        limit.restart(parse_seconds(given) - process_age())
    if program.OWN_PROCESS:
        _watch(limit)
    return limit


def process_age() -> float:
    """Seconds since the process was started; where the system does not say, since the import."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, AttributeError):
        return time.monotonic() - _IMPORTED


def _watch(limit: Limit) -> None:
    """A thread that is told of SIGTERM, since the main thread may compile for a minute."""
    received, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda number, frame: None)

    def listen():
        while number := received.recv(1):
            if number[0] != signal.SIGTERM:
                continue
            if not limit.ended_by_signal:
                limit.end_soon()
                print("told to end: finishing what ends soon", file=sys.stderr, flush=True)
                # Nothing that is half written counts, so that leaving at once loses no more.
                timer = threading.Timer(GRACE + _LAST, os._exit, [SIGNAL_STATUS])
                timer.daemon = True
                timer.start()

    told_for_life = threading.Thread(target=listen, daemon=True)
    told_for_life.socket = told  # else it is closed
    told_for_life.start()
