"""Which processor this is: its name, and the width of its vectors, on which algorithms depend."""

import functools
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")  # of Linux


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; nothing elsewhere."""
    try:
        lines = CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def has_wide_vectors() -> bool:
    """Whether the processor computes with vectors of 512 bits (AVX-512); False where unknown."""
    return "avx512f" in _cpuinfo().get("flags", "").split()


def title() -> str:
    """The processor's name and, where it has them, its vectors: `AMD EPYC with AVX2`."""
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine()
    flags = _cpuinfo().get("flags", "").split()
    known = {"avx512f": "AVX-512", "avx2": "AVX2"}
    return next((f"{name} with {known[flag]}" for flag in known if flag in flags), name)
