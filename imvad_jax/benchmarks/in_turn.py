"""Our work and another program's in turn, as a comparison records it."""

from collections.abc import Callable

import numpy as np

from imvad_jax.benchmarks.measure import measure, ratio, summary
from imvad_jax.benchmarks.workloads import Options
from imvad_jax.errors import UserError

# Beyond this share of its size a result is another one; with room for bfloat16.
MOST_DIFFERENT = 0.05


def timed(options: Options, ours: Callable, theirs: Callable, difference: float | None) -> dict:
    """Times two calls in turn: `{ours_s, theirs_s, ratio, difference}`, theirs over ours.

    Raises:
      UserError: the difference, where there is one, says that they do not do the same.
    """
    if difference is not None:
        check_same(difference)
    calls = {"ours": ours, "theirs": theirs}
    samples = measure(calls, options.repeats, options.least_seconds, settle=True)
    return {
        "ours_s": summary(samples["ours"].wall),
        "theirs_s": summary(samples["theirs"].wall),
        "ratio": ratio(samples, "theirs", "ours"),
        "difference": difference,
    }


def largest_difference(ours, theirs) -> float:
    """The largest difference of two arrays over the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def check_same(difference: float) -> None:
    """Raises UserError if a result is too far from ours, or NaN, to be that of the same work."""
    if not difference <= MOST_DIFFERENT:
        raise UserError(f"another result than ours, by {difference:.1g} of its size; not timed")
