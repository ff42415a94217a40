"""Figures of the comparison with anomalib: times of both sides and their ratios."""

from collections.abc import Callable, Mapping, Sequence

from imvad_jax.benchmarks.measure import summary

FIRST, COLD, WARM, THEIRS = "ours, first call", "ours, cold", "ours, warm", "anomalib"
NOT_SUMMARIZED = ("metrics", "steps")  # of the figures of a run

Runs = Mapping[
    str, Sequence[dict]
]  # by program the figures of each run, as `Programs` returns them


def collect(runs: Runs, forwards: Sequence[float], images: int) -> dict:
    """`{programs, parts}`: what each program took, and what both did, with the ratio of medians.

    Args:
      runs: Of FIRST, COLD, WARM and THEIRS.
      forwards: Seconds of the backbone alone over all images.
      images: How many these are, to fit and to test.
    """
    of = _sums(runs)
    ours = ("decode", "fit", "score", "metrics")
    warm, theirs = of(WARM, *ours), of(THEIRS, "fit", "test")
    parts = {
        "fit, warm": _part(of(WARM, "decode", "fit"), of(THEIRS, "fit")),
        "fit, cold": _part(of(COLD, "decode", "fit"), of(THEIRS, "fit")),
        "score and metrics": _part(of(WARM, "score", "metrics"), of(THEIRS, "test")),
        "fit to metrics, warm": _part(warm, theirs),
        "fit to metrics, cold": _part(of(COLD, *ours), theirs),
        "process, warm": _part(of(WARM, "process"), of(THEIRS, "process")),
        "process, cold": _part(of(COLD, "process"), of(THEIRS, "process")),
        "beside the backbone": _part(
            warm, summary(forwards), work="fit to metrics, warm",
            against=f"our backbone alone, {images} images",
        ),
    }  # fmt: skip
    return {"programs": _programs(runs), "parts": parts}


def collect_fits(runs: Runs, epochs: int) -> dict:
    """As `collect`, of whole fits of so many epochs; `runs` are of FIRST, WARM and THEIRS.

    Our first call compiles and decodes; the warm one reads compiled programs and decoded images.
    """
    of = _sums(runs)
    name, theirs = f"fit of {epochs} epochs", of(THEIRS, "fit")
    parts = {
        f"{name}, warm": _part(of(WARM, "decode", "fit"), theirs),
        f"{name}, first call": _part(of(FIRST, "decode", "fit"), theirs),
        "an epoch after the first": _part(of(WARM, "epoch"), of(THEIRS, "epoch")),
        "a step after the first epoch": _part(of(WARM, "step"), of(THEIRS, "step")),
        "score and metrics": _part(of(WARM, "score", "metrics"), of(THEIRS, "test")),
        "process, warm": _part(of(WARM, "process"), of(THEIRS, "process")),
        "process, first call": _part(of(FIRST, "process"), of(THEIRS, "process")),
    }
    return {"epochs": epochs, "programs": _programs(runs), "parts": parts}


def _sums(runs: Runs) -> Callable[..., dict]:
    """A call that sums up the seconds of stages of a program, over its runs."""

    def of(name: str, *stages: str) -> dict:
        return summary([sum(run[f"{stage}_s"] for stage in stages) for run in runs[name]])

    return of


def _part(ours: dict, theirs: dict, **labels: str) -> dict:
    ratio = theirs["median"] / ours["median"]
    return {"ours_s": ours, "theirs_s": theirs, "ratio": ratio, "difference": None} | labels


def _programs(runs: Runs) -> dict[str, dict]:
    return {
        name: {
            key: value if key in NOT_SUMMARIZED else summary([run[key] for run in found])
            for key, value in found[-1].items()
        }
        for name, found in runs.items()
    }
