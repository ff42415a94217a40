"""Reliable timing: separate warm-up, alternating repeats, medians, load of other processes."""

import math
import os
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)  # what calls are named by

MOST_STEPS = 100  # of a repeat: their inputs and results lie in memory together

Call = Callable[[int], object]  # does so many steps and waits for the last one


class Samples(NamedTuple):
    """Seconds of one step, a value a repeat: on the clock, and of all processors for this."""

    wall: list[float]
    cpu: list[float]


def summary(values: Sequence[float]) -> dict:
    """`{median, min, max, repeats}` of at least one value."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "repeats": len(values),
    }


def steps_for(one: float, least: float) -> int:
    """Steps of a repeat that lasts at least `least` seconds, where one step takes `one`."""
    return max(1, min(math.ceil(least / max(one, 1e-9)), MOST_STEPS))


def measure(
    calls: Mapping[K, Call],
    repeats: int,
    least: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
    *,
    settle: bool = False,
) -> dict[K, Samples]:
    """Times calls in turn (A B A B ...), so that what slows the machine down slows all of them.

    Each is warmed up by a step that is not timed; with `least` another step says how many of them
    make a repeat of at least so many seconds. With `settle` a step that is not timed also precedes
    every repeat: where memory that lies idle for a second goes back to the host of a virtual
    machine, the first step of a turn pays for receiving it again, which no training does.
    """
    steps = {}
    for name, call in calls.items():
        call(1)
        steps[name] = 1
        if least:
            start = clock()
            call(1)
            steps[name] = steps_for(clock() - start, least)
    samples = {name: Samples([], []) for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if settle:
                call(1)
            start, cpu_start = clock(), cpu_clock()
            call(steps[name])
            samples[name].wall.append((clock() - start) / steps[name])
            samples[name].cpu.append((cpu_clock() - cpu_start) / steps[name])
    return samples


def ratio(samples: Mapping[K, Samples], above: K, below: K, kind: str = "wall") -> float:
    """The ratio of two medians."""
    top, bottom = (statistics.median(getattr(samples[name], kind)) for name in (above, below))
    return top / bottom


def own_cpu_seconds() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


class OtherLoad:
    """What other processes used of the machine's processors since this was made (Linux).

    Processes that this one started count as its own once they have ended.
    """

    def __init__(self, stat: str | Path = "/proc/stat", cpu_clock=own_cpu_seconds):
        self._stat, self._cpu_clock = Path(stat), cpu_clock
        self._start = self._read()

    def _read(self) -> tuple[float, float, float] | None:
        try:
            ticks = [int(value) for value in self._stat.read_text().split("\n")[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        idle = ticks[3] + ticks[4]  # idle, and waiting for a disk
        second = os.sysconf("SC_CLK_TCK")
        return sum(ticks) / second, (sum(ticks) - idle) / second, self._cpu_clock()

    def share(self) -> float | None:
        """From 0 (alone) to 1; None where the system does not say."""
        now = self._read()
        if self._start is None or now is None:
            return None
        total, busy, own = (a - b for a, b in zip(now, self._start))
        return min(max((busy - own) / total, 0.0), 1.0) if total > 0 else None


def peak_memory(devices: Sequence) -> dict | None:
    """`{bytes, of}`: the most that the accelerators held together, or this process on the CPU."""
    if devices[0].platform != "cpu":
        stats = [device.memory_stats() or {} for device in devices]
        if not all("peak_bytes_in_use" in found for found in stats):
            return None
        return {"bytes": sum(found["peak_bytes_in_use"] for found in stats), "of": "devices"}
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return {"bytes": int(line.split()[1]) * 1024, "of": "process"}
    except OSError:
        pass
    return None
