"""`--time_limit`, and signals: what is finished is written, and the same command goes on."""

import os
import time

from absl import flags

from imvad_jax.programs import stopping
from imvad_jax.training.limit import Limit, parse_seconds

_IMPORTED = time.monotonic()

_TIME_LIMIT = flags.DEFINE_string(
    "time_limit", None, "Nothing is begun that is not expected to end within this time, such as "
    "90s, 9m or 8h from the start of the program; what is finished is written, and the same "
    "command goes on. Exit status 75 where something is left to do. SIGTERM does the same (143), "
    "and so does Ctrl-C (130).",
)  # fmt: skip


def start_limit() -> Limit:
    """The limit of this process, which signals shorten (`stopping`). To be called once.

    Raises:
      UserError: the flag names no time.
    """
    given = _TIME_LIMIT.value
    limit = Limit()
    if given is not None:
        limit.restart(parse_seconds(given) - process_age())
    stopping.watch(limit)
    return limit


def process_age() -> float:
    """Seconds since the process was started; where the system does not say, since the import."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as file:
            started = int(file.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, AttributeError):
        return time.monotonic() - _IMPORTED
