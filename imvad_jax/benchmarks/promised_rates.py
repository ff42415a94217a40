"""How many good images a threshold flags, against what it promises: a simulation.

    python -m imvad_jax.benchmarks.promised_rates

prints the tables of docs/thresholds.md. Every draw is seeded; it takes about a minute.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from imvad_jax.data.holdout import draw_folds, draw_held_out, number_of_folds
from imvad_jax.evaluation import calibrate
from imvad_jax.evaluation.threshold import promised_rate, threshold_rank

COUNTS = (5, 10, 20, 50, 200)
QUANTILE = 0.95
HOLDOUT = 0.2
NEW = 400  # good images that each threshold is tried on
PLACES, VALUES = 16, 4  # of the images of the detectors: so many places with so many values each

Draw = Callable[[np.random.Generator, int], np.ndarray]  # scores [N] of N good images

SCORES: dict[str, Draw] = {
    "normal": lambda rng, count: rng.normal(-3.0, 1.0, count),
    "lognormal": lambda rng, count: rng.lognormal(0.0, 1.0, count),
    "t, 2 degrees": lambda rng, count: rng.standard_t(2, count),
    "ties": lambda rng, count: np.floor(rng.gamma(2.0, 1.0, count)),
    "two values": lambda rng, count: (rng.random(count) < 0.07).astype(float),
}


class Rate(NamedTuple):
    """Mean share of new good images that were flagged over all draws, and its standard error."""

    mean: float
    error: float


def _rate(shares: list[float]) -> Rate:
    return Rate(float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares))))


def promised(count: int, quantile: float = QUANTILE) -> float:
    """The rate that so many good images promise."""
    return promised_rate(count, threshold_rank(count, quantile))


def held_out_rate(draw: Draw, count: int, draws: int, seed: int = 0) -> Rate:
    """What a threshold from `count` scores flags of new ones of the same distribution."""
    rng, shares = np.random.default_rng([seed, count]), []
    for _ in range(draws):
        found = calibrate(draw(rng, count), [""] * count, QUANTILE)
        shares.append(float(np.mean(draw(rng, NEW) > found.image.threshold)))
    return _rate(shares)


def gaussian(good: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A Gaussian at each place of images `[N, P, D]`, as in PaDiM; gives the scores of others."""
    mean = good.mean(0)
    centred = (good - mean).transpose(1, 0, 2)
    scatter = centred.transpose(0, 2, 1) @ centred / max(len(good) - 1, 1)
    inverse = np.linalg.inv(scatter + 0.01 * np.eye(good.shape[-1]))
    return lambda images: np.einsum("npd,pde,npe->np", images - mean, inverse, images - mean).max(1)


def nearest(good: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The nearest of all patches of good images `[N, P, D]`, as in PatchCore without a coreset."""
    bank = good.reshape(-1, good.shape[-1])

    def score(images: np.ndarray) -> np.ndarray:
        query = images.reshape(-1, images.shape[-1])
        squares = (query**2).sum(1)[:, None] + (bank**2).sum(1) - 2 * query @ bank.T
        return squares.min(1).reshape(len(images), -1).max(1)

    return score


DETECTORS = {"Gaussian": gaussian, "nearest neighbour": nearest}


def _images(rng: np.random.Generator, count: int) -> np.ndarray:
    """Good images `[N, P, D]`: places differ, and each image is brighter or darker as a whole."""
    places = np.linspace(0, 3, PLACES)[:, None]
    return places + 0.5 * rng.normal(size=(count, 1, 1)) + rng.normal(size=(count, PLACES, VALUES))


def fitted_rate(fit: Callable, total: int, folds: int, draws: int, seed: int = 0) -> Rate:
    """What a detector flags of new images that was fitted and calibrated on `total` good ones.

    With `folds` as `Model.calibrate_by_folds`; with 0 a fifth of the images is held out.
    """
    rng, shares = np.random.default_rng([seed, total]), []
    for number in range(draws):
        good = _images(rng, total)
        if folds:
            score, scores = fit(good), np.empty(total)
            for fold in draw_folds(range(total), folds, number):
                scores[fold] = fit(np.delete(good, fold, 0))(good[fold])
        else:
            kept, out = draw_held_out(total, HOLDOUT, number)
            score = fit(good[kept])
            scores = score(good[out])
        found = calibrate(scores, [""] * len(scores), QUANTILE)
        shares.append(float(np.mean(score(_images(rng, NEW)) > found.image.threshold)))
    return _rate(shares)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(draws: int = 4000, fitted_draws: int = 400) -> str:
    """Both tables as Markdown, in percent."""
    rows = [
        [str(n), _percent(promised(n))]
        + [_percent(held_out_rate(draw, n, draws).mean) for draw in SCORES.values()]
        for n in COUNTS
    ]
    first = _table(["images", "promised", *SCORES], rows)
    rows = []
    for total in COUNTS:
        folds = number_of_folds(("statistics",), total, HOLDOUT)
        held_out = len(draw_held_out(total, HOLDOUT, 0)[1])
        ways = [(folds, total)] if folds else []
        for way, count in (*ways, (0, held_out)):
            found = [fitted_rate(fit, total, way, fitted_draws) for fit in DETECTORS.values()]
            name = f"{way} folds" if way else f"{held_out} held out"
            rows.append([str(total), name, _percent(promised(count))])
            rows[-1] += [_percent(rate.mean) for rate in found]
    second = _table(["images", "threshold from", "promised", *DETECTORS], rows)
    return f"{first}\n\n{second}"


if __name__ == "__main__":
    print(tables())
