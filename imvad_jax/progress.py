"""Progress bars: rate and remaining time on a terminal, occasional lines in a log.

In a notebook a bar is one line of text that is updated in place; no widgets are needed.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

from imvad_jax.errors import escaped

# By label, always.
_UNITS = {
    "coreset": "picks",
    "covariances": "steps",
    "scaling": "points",
    "whole processes": "runs",
}
_LOG_INTERVAL = 10.0  # seconds between the lines of a log


class _Log:
    """Where a bar writes when nobody watches: whole lines instead of one that is overwritten."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


class _Cell:
    """Where a bar writes in a notebook: one output below the cell, replaced by every later line."""

    def __init__(self):
        self._shown = None

    def write(self, text: str) -> None:
        if not (line := text.strip()):
            return
        display = sys.modules["IPython.display"].display
        bundle = {"text/plain": line}
        if self._shown is None:
            self._shown = display(bundle, raw=True, display_id=True)
        else:
            self._shown.update(bundle, raw=True)

    def flush(self) -> None:
        pass


def _in_notebook() -> bool:
    """Whether cells of a notebook run in this process: a kernel of Jupyter, not IPython alone."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell" and "IPython.display" in sys.modules


def _bar(total: int, label: str, unit: str | None) -> tqdm:
    label = escaped(label)
    unit = f" {_UNITS.get(label, unit or 'images')}"
    if _in_notebook():
        return tqdm(
            total=total,
            desc=label,
            unit=unit,
            file=_Cell(),
            position=0,
            ncols=80,
            ascii=False,
            # Looked at after every unit: tqdm's monitor thread, whose output would belong to no
            # cell, then never draws.
            miniters=1,
        )
    if sys.stderr.isatty():
        return tqdm(total=total, desc=label, unit=unit, file=sys.stderr, dynamic_ncols=True)
    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        file=_Log(),
        mininterval=_LOG_INTERVAL,
        # Above the interval, or a monitor thread would redraw slow work in between.
        maxinterval=10 * _LOG_INTERVAL,
        bar_format="{desc}: {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]",
    )


def tqdm_progress(total: int, label: str, unit: str | None = None) -> Callable[[int], None]:
    """A bar on stderr; the result is called with the number of newly finished units.

    It closes itself when the total is reached. If the work is abandoned before, by an exception
    say, the bar is closed as soon as the function is let go of.

    Args:
      total: Units of the whole work.
      label: What is being done, shown at the left.
      unit: Plural noun; by default `images`. A few labels have a unit of their own.
    """
    bar = _bar(total, label, unit)
    if total <= 0:
        bar.close()

    def done(count: int) -> None:
        bar.update(count)
        if bar.n >= bar.total:
            bar.close()

    return done


def silent_progress(total: int, label: str) -> Callable[[int], None]:
    """A progress display that shows nothing."""
    return lambda done: None


def untracked(batches: Iterable[Any], total_images: int, label: str) -> Iterable[Any]:
    """Passes batches on and shows nothing."""
    return batches


def track(
    batches: Iterable[Any], total_images: int, label: str, unit: str | None = None
) -> Iterator[Any]:
    """Passes batches (`data.batches.Batch`) on and counts their valid images on a bar.

    The bar is closed at the end, when an exception passes, and when the caller stops early.
    """
    bar = _bar(total_images, label, unit)
    try:
        for batch in batches:
            yield batch
            bar.update(int(batch.valid.sum()))
    finally:
        bar.close()
