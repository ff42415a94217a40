"""Runs a command to its end and writes what it took.

    python imvad_jax/benchmarks/whole_process.py OUT.json COMMAND [ARGUMENT ...]

Writes `{status, wall_s, cpu_s, peak_bytes}` and exits with the status of the command. Linux counts
what the starting process held as memory of the started one, so that this one is kept small: it
imports the standard library alone.
"""

import json
import os
import subprocess
import sys
import time


def main() -> int:
    """The program."""
    out, *command = sys.argv[1:]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    found = {
        "status": process.returncode,
        "wall_s": time.perf_counter() - start,
        "cpu_s": used.ru_utime + used.ru_stime,  # with the children that it waited for
        "peak_bytes": used.ru_maxrss * 1024,  # of the largest of them
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(found, file)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main())
