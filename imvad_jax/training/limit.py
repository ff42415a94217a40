"""Time limits: no work is started that is not expected to end in time; signals shorten the limit.

The code that does the work checks its `Limit` between steps. With several hosts only the ends of
epochs are checked, where all hosts stop together.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from imvad_jax.errors import UserError
from imvad_jax.methods.base import Progress

LIMIT_STATUS = 75  # exit status: the limit was reached; the same command goes on
SIGNAL_STATUS = 143  # exit status: ended by SIGTERM; 130 by Ctrl-C
GRACE = 20.0  # seconds that a program has left once it was told to end
MARGIN = 1.1  # of an expectation: steps differ
CLOSING = 5.0  # seconds kept for saving and leaving
WARM_UP = 2  # first steps of a work, which compile

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Stopped(Exception):
    """The work stopped early; the message says how far it got. It is not a failure."""

    def __init__(self, message: str, status: int = LIMIT_STATUS):
        super().__init__(message)
        self.status = status


def parse_seconds(text: str, flag: str = "--time_limit") -> float:
    """`90s`, `9m`, `1.5h` or a plain number of seconds. Raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not seconds:
        raise UserError(f"{flag}={text}: expected a time such as 90s, 9m or 8h")
    return seconds


def in_words(seconds: float) -> str:
    """`8 s`, `4 min`, `2 h 05 min`."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


class Limit:
    """The remaining time. `clock` returns seconds, like `time.monotonic`.

    `ended_by_signal` is set when the process has been told to end.
    """

    grace = GRACE

    def __init__(self, seconds: float | None = None, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._end = None if seconds is None else clock() + seconds
        self._ended: float | None = None
        self._status = SIGNAL_STATUS
        self._callbacks: list[Callable[[], object]] = []

    def restart(self, seconds: float | None) -> None:
        """Sets the remaining time in seconds; None means no limit."""
        self._end = None if seconds is None else self.clock() + seconds

    def end_soon(self, status: int = SIGNAL_STATUS) -> None:
        """The process is to end: `GRACE` seconds are left at most. Told by any thread.

        `status` is the exit status of a process whose work is ended by it.
        """
        if self._ended is None:
            self._status = status
            self._ended = self.clock()
            for callback in self._callbacks:
                callback()

    def on_end(self, callback: Callable[[], object]) -> None:
        """Calls a function when the process is told to end, by another thread: to pass it on.

        At once if it was told before; perhaps twice.
        """
        self._callbacks.append(callback)
        if self.ended_by_signal:
            callback()

    @property
    def ended_by_signal(self) -> bool:
        """Whether the process was told to end."""
        return self._ended is not None

    @property
    def left(self) -> float:
        """Seconds; infinite without a limit."""
        ends = [] if self._end is None else [self._end]
        if self._ended is not None:
            ends.append(self._ended + self.grace)
        return min(ends) - self.clock() if ends else float("inf")

    def fits(self, seconds: float) -> bool:
        """Whether work of `seconds` is expected to finish in time, including saving."""
        return seconds * MARGIN + CLOSING <= self.left

    def stop(self, message: str) -> Stopped:
        """Returns the exception to raise, with the exit status of its cause."""
        return Stopped(message, self._status if self.ended_by_signal else LIMIT_STATUS)

    def require(self, seconds: float, what: str) -> None:
        """Raises Stopped if the work is not expected to finish in time."""
        if self.ended_by_signal or not self.fits(seconds):
            needs = f"{what} needs about {in_words(seconds)}; {in_words(self.left)} are left"
            raise self.stop(f"{needs}; the same command goes on")

    def check(self, what: str) -> None:
        """Raises Stopped if nothing may be started any more."""
        if self.ended_by_signal or not self.fits(0):
            raise self.stop(
                f"stopped before {what}, {in_words(self.left)} are left; the same command goes on"
            )


NO_LIMIT = Limit()


class Pace:
    """Estimates from the steps done so far how long the remaining steps take."""

    def __init__(self, total: int, limit: Limit):
        self.total, self._limit = total, limit
        self.done = 0
        self._calls = 0
        self._since: tuple[float, int] | None = None  # after the warm-up: time and steps done

    def add(self, count: int) -> None:
        """Records that more steps are done."""
        self.done += count
        self._calls += 1
        if self._calls == WARM_UP:
            self._since = self._limit.clock(), self.done

    @property
    def rest(self) -> float | None:
        """Seconds until all steps are done; None as long as nothing is known."""
        if self._since is None or self.done <= self._since[1]:
            return None
        start, before = self._since
        return (self._limit.clock() - start) / (self.done - before) * (self.total - self.done)


def limited(progress: Progress, limit: Limit) -> Progress:
    """A progress display that raises Stopped once the work cannot finish in time.

    Training is exempt, because it stops between epochs by itself.
    """

    def start(total: int, label: str, *args, **kwargs) -> Callable[[int], None]:
        done, pace = progress(total, label, *args, **kwargs), Pace(total, limit)

        def count(number: int) -> None:
            done(number)
            pace.add(number)
            rest = pace.rest
            late = rest is not None and not limit.fits(rest)
            if label != "train" and pace.done < total and (limit.ended_by_signal or late):
                more = f" ({in_words(rest)} more are needed)" if rest and late and rest > 1 else ""
                raise limit.stop(
                    f"stopped during '{label}', {pace.done} of {total}{more}; the same command "
                    "begins it anew"
                )

        return count

    return start


def limited_track(track: Callable[..., Iterable], limit: Limit) -> Callable[..., Iterator]:
    """`progress.track` that raises Stopped between two batches once the time is over."""

    def through(batches: Iterable[Any], total_images: int, label: str) -> Iterator[Any]:
        shown = track(batches, total_images, label)
        for batch in shown:
            yield batch
            if limit.ended_by_signal or limit.left <= 0:
                raise limit.stop(f"stopped during '{label}'; the same command begins it anew")

    return through
