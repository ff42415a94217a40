"""Huge pages for the memory of a program, on Linux.

What a compiled program computes on the way lies in one block of hundreds of MiB, which the C
library takes from the system anew at every call. In pages of 4 KiB a fifth of the processor time of
a training step on a CPU goes into receiving them; in pages of 2 MiB little does. The C library asks
for those if the environment says so when the process starts.
"""

import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
TUNABLE = "glibc.malloc.hugetlb"
SINCE = (2, 35)  # of glibc
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Starts this process anew with huge pages, under the same number, where they have to be asked
    for. To be called before anything is done.

    `GLIBC_TUNABLES=glibc.malloc.hugetlb=0` in the environment keeps it as it is.
    """
    given = os.environ.get(VARIABLE, "")
    if TUNABLE in given or not _given_on_request():
        return
    tunables = f"{given}:{TUNABLE}=1" if given else f"{TUNABLE}=1"
    arguments = [sys.executable, *sys.orig_argv[1:]]
    os.execve(sys.executable, arguments, os.environ | {VARIABLE: tunables})


def _given_on_request() -> bool:
    """Whether this system gives huge pages to those who ask, and this C library can ask."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        known = name == "glibc" and tuple(map(int, version.split(".")[:2])) >= SINCE
        return known and bool(sys.executable) and "[madvise]" in SETTING.read_text()
    except (AttributeError, OSError, ValueError):  # no Linux, or not this C library
        return False
