"""Where the time goes: wall, waiting for data, compiling. And programs built, counted."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import jax

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
# Tracing and lowering count as compile time; only the backend event counts programs.
_COMPILE_PREFIX = "/jax/core/compile/"


class CompileMonitor:
    """Counts the programs that JAX compiled (or read from its cache) and the seconds it took."""

    def __init__(self):
        self.programs = 0
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration_secs: float, **kwargs) -> None:
        if event == _COMPILE_EVENT:
            self.programs += 1
        if event.startswith(_COMPILE_PREFIX):
            self.seconds += duration_secs


COMPILES = CompileMonitor()  # jax.monitoring has no way to remove one listener, so there is one


class Timings:
    """Seconds by stage, for timings.json."""

    def __init__(self):
        self.wall: dict[str, float] = defaultdict(float)
        self.waiting: dict[str, float] = defaultdict(float)
        self._programs = COMPILES.programs
        self._compile_seconds = COMPILES.seconds

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the block to `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - start

    def wait(self, items: Iterable, name: str) -> Iterator:
        """Passes `items` on; the time spent waiting for the next one adds to `name`."""
        iterator = iter(items)
        while True:
            start = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.waiting[name] += time.perf_counter() - start
            yield item

    def as_dict(self) -> dict:
        """`{stage: {wall_s, waiting_s}}`; compile time lies within the stages it interrupted."""
        stages = {
            name: {
                "wall_s": round(seconds, 4),
                "waiting_s": round(self.waiting.get(name, 0.0), 4),
            }
            for name, seconds in self.wall.items()
        }
        stages["compile"] = {
            "wall_s": round(COMPILES.seconds - self._compile_seconds, 4),
            "waiting_s": 0.0,
            "programs": COMPILES.programs - self._programs,
        }
        return stages
