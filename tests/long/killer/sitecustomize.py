"""Kills its process at the n-th change of files below a directory, as the environment says.

Python imports it at its start where its folder is in PYTHONPATH. The changes of all processes that
share the environment are counted together, in the size of a file; from the n-th on, whoever makes
one is killed before it is made.
"""

import os
import signal
import sys

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(top, at, counter, left_out):
    """From now on the process is killed at its first change that is not among the first `at`."""

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
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if "KILL_BELOW" in os.environ:
    watch(
        os.environ["KILL_BELOW"] + os.sep, int(os.environ["KILL_AT"]),
        os.open(os.environ["KILL_COUNTER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        os.path.join(os.environ["KILL_BELOW"], "cache", "compiled"),
    )  # fmt: skip
