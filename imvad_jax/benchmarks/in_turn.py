"""Our work and another program's in turn, as a comparison records it."""

from collections.abc import Callable

import numpy as np

from imvad_jax.benchmarks.measure import measure, ratio, summary
from imvad_jax.benchmarks.workloads import Options


def timed(options: Options, ours: Callable, theirs: Callable, difference: float | None) -> dict:
    """Times two calls in turn: `{ours_s, theirs_s, ratio, difference}`, theirs over ours."""
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
