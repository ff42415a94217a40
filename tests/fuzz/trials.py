"""Reading a damaged file: it is loaded, or refused in one line that names it, within a second.

Where reading includes drawing a page, within a second more than the undamaged file takes.
"""

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from imvad_jax.errors import UserError

LIMIT = 1.0  # seconds
_REFUSED = object()
_ENDLESS = 60  # seconds, after which a reader is interrupted


class Endless(BaseException):
    """Raised in a reader that does not end; no `except Exception` of its own catches it."""


def sized(examples: int) -> settings:
    """The same `examples` files in every run; nothing is kept between runs."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class Trials:
    """What became of the files of one kind."""

    def __init__(self, name: str):
        self.name, self.found = name, Counter()
        self._usual: dict[Callable[[Path], object], float] = {}

    def time_undamaged(self, read: Callable[[Path], object], top: Path) -> None:
        """Lets `read` take a second more than it takes now, with no file damaged."""
        self._usual[read] = self._look(read, top, top)[1]

    def look(self, read: Callable[[Path], object], top: Path, damaged: Path) -> object:
        """What `read(top)` gives, where `damaged` is or lies below `top`; None if it is refused.

        Raises:
          Whatever `read` raises but a UserError; AssertionError for one of several lines, one that
          does not name the file, and for a read over the limit, twice.
        """
        loaded, seconds = self._look(read, top, damaged)
        limit = LIMIT + self._usual.get(read, 0.0)
        if seconds > limit:  # the machine may have had other work
            again = self._look(read, top, damaged)[1]
            assert again <= limit, f"{damaged.name}: read in {seconds:.1f} and {again:.1f} s"
        self.found["files"] += 1
        self.found["refused" if loaded is _REFUSED else "loaded"] += 1
        return None if loaded is _REFUSED else loaded

    def _look(self, read, top: Path, damaged: Path) -> tuple[object, float]:
        begun = _clocks()
        try:
            with _ended():
                loaded = read(top)
        except UserError as error:
            seconds = _since(begun)
            for text in (error.text, str(error)):
                assert len(text.splitlines()) == 1, f"several lines: {text!r}"
                assert str(damaged) in text, f"{damaged.name} is not named: {text!r}"
            return _REFUSED, seconds
        return loaded, _since(begun)

    @property
    def line(self) -> str:
        """The figures in words, for the summary of the tests."""
        counts = ", ".join(f"{self.found[key]} {key}" for key in ("files", "loaded", "refused"))
        return f"{self.name}: {counts}; 0 crashes, 0 over {LIMIT:g} s, 0 unnamed"


def _clocks() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(begun: tuple[float, float]) -> float:
    """Seconds on the clock, or of this process where it waited for others' work."""
    return min(now - then for now, then in zip(_clocks(), begun, strict=True))


@contextlib.contextmanager
def _ended():
    def end(*_):
        raise Endless(f"still reading after {_ENDLESS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_ENDLESS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
