"""The categories, and `draw`: one picture of one part, with or without its defect."""

import dataclasses
import zlib
from collections.abc import Callable

import numpy as np

from imvad_jax.data.demo import fabric, hexnut, tablet
from imvad_jax.data.demo.scene import Part, develop, expose, shade
from imvad_jax.errors import UserError, choose


@dataclasses.dataclass(frozen=True)
class Category:
    """A kind of part: how a good one is built, and what can go wrong with it."""

    build: Callable[[np.random.Generator, int], Part]
    defects: dict[str, Callable[[Part, np.random.Generator], tuple[Part, np.ndarray]]]
    noise: float  # of the sensor


# A new category is one file (build, DEFECTS) and one line here.
CATEGORIES: dict[str, Category] = {
    "fabric": Category(fabric.build, fabric.DEFECTS, noise=0.022),
    "hexnut": Category(hexnut.build, hexnut.DEFECTS, noise=0.020),
    "tablet": Category(tablet.build, tablet.DEFECTS, noise=0.018),
}

# A pixel belongs to the defect where at least this share of its light does. Less is invisible
# under the sensor's noise, and is left out of the picture too: picture and mask agree exactly.
_SHARE = 0.1


def _stream(seed: int, *names: str | int) -> np.random.Generator:
    """A generator of its own for each purpose: stable in every process, unlike hash()."""
    words = [n if isinstance(n, int) else zlib.crc32(n.encode()) for n in names]
    return np.random.default_rng(np.random.SeedSequence([seed, *words]))


def draw(
    category: str,
    split: str,
    defect: str,
    index: int,
    *,
    seed: int = 0,
    size: int = 256,
    flawless: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one picture and its mask.

    Args:
      category: a name in CATEGORIES.
      split: "train" or "test".
      defect: "good" or one of the category's defects.
      index: number of the picture in its folder.
      seed: of the whole dataset.
      size: height and width in pixels.
      flawless: draws the same part under the same light and noise before it was damaged.

    Returns:
      Image uint8 [size, size] (single-channel categories) or [size, size, 3], and mask uint8
      {0, 255} [size, size]: outside the mask the image equals its `flawless` twin, byte for byte.
    """
    kind = CATEGORIES[choose("category", category, CATEGORIES)]
    choose("split", split, ("train", "test"))
    choose(f"defect of {category}", defect, ("good", *kind.defects))
    if size < 32 or seed < 0 or index < 0:
        raise UserError(
            f"seed {seed}, index {index}, size {size}: expected seed and index from 0, size from 32"
        )
    where = (category, split, defect, index)
    part = kind.build(_stream(seed, *where, "part"), 2 * size)
    image = expose(shade(part), part.light.focus)
    mask = np.zeros((size, size), bool)
    if defect != "good" and not flawless:
        damaged, alpha = kind.defects[defect](part, _stream(seed, *where, "defect"))
        mask = expose(alpha.astype(np.float32), part.light.focus) > _SHARE
        damaged_image = expose(shade(damaged), part.light.focus)
        image = np.where(mask if image.ndim == 2 else mask[..., None], damaged_image, image)
    picture = develop(image, _stream(seed, *where, "sensor"), kind.noise)
    return picture, mask.astype(np.uint8) * np.uint8(255)
