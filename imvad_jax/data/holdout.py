"""Which good images are held out: the threshold is found from images that were not fitted on."""

import numpy as np

from imvad_jax.errors import UserError


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
