"""Drawn maps and masks shared by the tests of the pixel figures."""

import numpy as np
from scipy import ndimage


def ragged(seed, shape=(3, 16, 16), levels=6):
    """Returns maps with `levels` values (0: no ties) and masks with regions that touch.

    The last image is good. Regions touch along edges and corners, and one is a single pixel.
    """
    rng = np.random.default_rng(seed)
    masks = rng.random(shape) < 0.12
    masks[0, 2:6, 3:9] = True
    masks[0, 6, 9] = True  # touches the block by a corner only
    masks[0, 10:, :] = False
    masks[0, 13, 13] = True
    masks[-1] = False
    maps = rng.random(shape) + 0.25 * masks
    if levels:
        maps = np.floor(maps * levels) / levels
    return maps.astype(np.float32), masks


def smooth(images=160, size=256, seed=0):
    """Returns smooth float32 maps and blob masks: a category as large as the largest are."""
    rng = np.random.default_rng(seed)

    def blur(sigma):
        noise = rng.standard_normal((size, size), dtype=np.float32)
        blurred = ndimage.gaussian_filter(noise, sigma)
        return blurred / blurred.std()

    masks = np.stack([blur(12) > 1.9 for _ in range(images)])
    masks[: images // 4] = False
    maps = np.stack([blur(4) for _ in range(images)]) + masks
    return maps.astype(np.float32), masks
