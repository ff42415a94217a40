"""Kills its process at the n-th change of files below a directory, as the environment says.

Python imports it at its start where its folder is in PYTHONPATH. The changes of all processes that
share the environment are counted together, in the size of a file; from the n-th on, whoever makes
one is killed before it is made, or so many seconds later.
"""

import os
import signal
import sys
import threading

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kill():
    """Ends this process as a machine that stops does."""
    os.kill(os.getpid(), signal.SIGKILL)


def watch(top, at, seconds, counter, left_out):
    """From now on the process is killed at its first change from the `at`-th of all on."""

    def hook(event, given):
        if event == "open":
            if not given[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        try:
            path = os.path.abspath(os.fsdecode(given[0]))
        except TypeError:  # a file descriptor
            return
        if not path.startswith(top) or path.startswith(left_out):
            return
        os.write(counter, b".")
        if os.fstat(counter).st_size >= at:
            threading.Timer(seconds, kill).start() if seconds else kill()

    sys.addaudithook(hook)


if "KILL_BELOW" in os.environ:
    watch(
        os.environ["KILL_BELOW"] + os.sep, int(os.environ["KILL_AT"]),
        float(os.environ["KILL_AFTER"]),
        os.open(os.environ["KILL_COUNTER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        os.path.join(os.environ["KILL_BELOW"], "cache", "compiled"),
    )  # fmt: skip
