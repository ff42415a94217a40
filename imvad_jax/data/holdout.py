"""Chooses the held-out good images, or folds, from which the threshold is set."""

from collections.abc import Sequence

import numpy as np

from imvad_jax.errors import UserError

FEW = 20  # fewer good images held out promise little; folds are taken instead where they are cheap
_MOST_FOLDS = 10
_LEAST_FOLDS = 5
_FOLD_PASSES = 500  # images that all folds together are fitted on, about


def draw_held_out(total: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the images that are kept and of those held out (one at least), ascending.

    A share of 0 holds none out.

    Raises:
      UserError: a share outside [0, 1), or nothing would be left to fit on.
    """
    if not 0 <= share < 1:
        raise UserError(f"--holdout={share}: expected a share from 0 to below 1")
    if not share:
        return np.arange(total), np.arange(0)
    count = max(round(share * total), 1)
    if count >= total:
        raise UserError(
            f"--holdout={share}: {total} good images are too few to hold {count} of them out; "
            "give more, or --holdout=0 (the run then has no threshold)"
        )
    order = np.random.default_rng([seed, total]).permutation(total)
    return np.sort(order[count:]), np.sort(order[:count])


def number_of_folds(phases: Sequence[str], total: int, share: float) -> int:
    """Returns the number of folds for `total` good images; 0 means a holdout instead.

    Folds are taken for methods without training (their only phase is that of statistics) where
    fewer than `FEW` images would be held out: one image per fold up to 10 images (leave-one-out),
    then 10 folds, and from 51 images on fewer, so that about 500 images are fitted on in all, but
    5 at least.
    """
    if not share or total < 2 or tuple(phases) != ("statistics",):
        return 0
    if max(round(share * total), 1) >= FEW:
        return 0
    return min(max(min(_FOLD_PASSES // total, _MOST_FOLDS), _LEAST_FOLDS), total)


def draw_folds(groups: Sequence, count: int, seed: int) -> list[np.ndarray]:
    """The numbers of the images of each fold, ascending; folds differ in size as little as can be.

    Images of one group, copies of one picture, go into one fold: what a detector was fitted on
    must not be scored. Where all are copies this cannot be, and they are divided as any others.

    Args:
      groups: [N] hashable, equal for copies.
      count: Of folds; fewer where there are fewer groups.
      seed: Of the draw.
    """
    numbers: dict = {}
    for number, group in enumerate(groups):
        numbers.setdefault(group, []).append(number)
    members = list(numbers.values())
    if len(members) == 1:
        members = [[number] for number in members[0]]
    order = np.random.default_rng([seed, len(groups)]).permutation(len(members))
    folds: list[list[int]] = [[] for _ in range(min(count, len(members)))]
    for place in sorted(order, key=lambda place: -len(members[place])):  # the largest first
        min(folds, key=len).extend(members[place])
    return [np.sort(fold) for fold in folds]
