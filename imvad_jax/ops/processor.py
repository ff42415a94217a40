"""What the processor can do, where the choice of an algorithm depends on it."""

import functools
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux


@functools.cache
def has_wide_vectors() -> bool:
    """Whether the processor computes with vectors of 512 bits (AVX-512); False where unknown."""
    try:
        flags = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return False
    return "avx512f" in flags.split()
