"""`--time_limit`, and signals: what is finished is written, and the same command goes on."""

import os
import time

from absl import flags

from imvad_jax.programs import stopping
from imvad_jax.training.limit import Limit, parse_seconds

_IMPORTED = time.monotonic()

_TIME_LIMIT = flags.DEFINE_string(
    "time_limit", None, "Time limit from the start of the program, such as 90s, 9m or 8h. The "
    "program starts nothing that it does not expect to finish in time, writes what is finished and "
    "exits with status 75 if work remains; the same command resumes it. SIGTERM (status 143) and "
    "Ctrl-C (status 130) stop it in the same way.",
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
