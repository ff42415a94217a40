"""Estimates the remaining time of a table from the times of its cells so far."""

import statistics
from collections import Counter
from collections.abc import Sequence

from imvad_jax.training.limit import in_words


class TimeLeft:
    """Learns from finished cells; those of a method are taken to be alike.

    The first cell of a method compiles its programs, so the later ones say more about the rest.
    """

    def __init__(self, workers: int = 1):
        self._workers = workers
        self._seconds: dict[str, list[float]] = {}

    def add(self, method: str, seconds: float) -> None:
        """A finished cell."""
        self._seconds.setdefault(method, []).append(seconds)

    def of(self, waiting: Sequence[str]) -> float | None:
        """Seconds for one more cell of each of these methods; None as long as nothing is known."""
        if not waiting:
            return 0.0
        if not self._seconds:
            return None
        total = sum(self._method(method, count) for method, count in Counter(waiting).items())
        return total / self._workers

    def known(self, method: str) -> float | None:
        """Seconds of one more cell of a method; None before the first is finished."""
        known = self._seconds.get(method)
        return statistics.median(known[1:] or known) if known else None

    def _method(self, method: str, count: int) -> float:
        """Seconds that `count` more cells of a method take."""
        if known := self._seconds.get(method):
            return count * statistics.median(known[1:] or known)
        firsts = [seconds[0] for seconds in self._seconds.values()]
        later = [second for seconds in self._seconds.values() for second in seconds[1:]]
        return statistics.fmean(firsts) + (count - 1) * statistics.fmean(later or firsts)


def format_seconds(seconds: float | None) -> str:
    """`8 s`, `4 min`, `2 h 05 min`; `unknown`."""
    return "unknown" if seconds is None else in_words(seconds)
