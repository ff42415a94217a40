"""Which processor this is: its name, and the width of its vectors, on which algorithms depend."""

import functools
import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux
TITLES = {"avx512f": "AVX-512", "avx2": "AVX2"}
LIMIT = "--xla_cpu_max_isa="  # in XLA_FLAGS: instructions that XLA's code is limited to


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        lines = CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _limit() -> str:
    """The instructions that XLA is told not to exceed, such as `AVX2`; empty where it is free."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return next((flag[len(LIMIT) :] for flag in reversed(flags) if flag.startswith(LIMIT)), "")


def has_wide_vectors() -> bool:
    """Whether XLA's code uses vectors of 512 bits (AVX-512) here; False where unknown."""
    limited = _limit().upper() in ("SSE4_2", "AVX", "AVX2")
    return "avx512f" in _cpuinfo().get("flags", "").split() and not limited


def title() -> str:
    """The processor's name and, where it has them, its vectors: `AMD EPYC with AVX2`.

    Where XLA is told to do with less: `AMD EPYC with AVX-512, XLA limited to AVX2`.
    """
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    flags = _cpuinfo().get("flags", "").split()
    found = next((f"{name} with {TITLES[flag]}" for flag in TITLES if flag in flags), name)
    return f"{found}, XLA limited to {_limit()}" if _limit() else found
