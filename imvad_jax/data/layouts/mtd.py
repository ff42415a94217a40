"""Magnetic-tile defects (Huang, Qiu, Yuan, The Visual Computer 2020); free for research.

`MT_<kind>/Imgs/*.jpg` with a mask `*.png` of the same name (non-zero is defect). The data has no
split of its own: 80 % of the free (good) tiles are drawn by the seed for training, the rest and
all defective tiles are the test set. The run stores the drawn names.
"""

import numpy as np

from imvad_jax.data.layouts import base
from imvad_jax.errors import UserError

TRAIN_SHARE = 0.8
KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")


class MagneticTiles(base.Layout):
    """The raw layout of the magnetic-tile data: one category, `tile`."""

    name = "mtd"
    expected = "MT_Free/Imgs/*.jpg and MT_<kind>/Imgs/*.jpg with masks *.png beside them"

    def categories(self, data_dir):
        root = base.require_directory(data_dir)
        return ["tile"] if (root / "MT_Free").is_dir() else []

    def category(self, data_dir, name, seed=0):
        root = base.require_directory(data_dir)
        good = self._samples(root, "Free", "good")
        if len(good) < 2:
            raise UserError(f"{root / 'MT_Free' / 'Imgs'}: {len(good)} good tiles found; "
                            "at least 2 are needed to split")  # fmt: skip
        order = np.random.default_rng(seed).permutation(len(good))
        drawn = set(order[: int(TRAIN_SHARE * len(good))].tolist())
        train = [s for i, s in enumerate(good) if i in drawn]
        test = [s for i, s in enumerate(good) if i not in drawn]
        for kind in KINDS:
            test += self._samples(root, kind, kind.lower())
        return base.Category(self.name, name, tuple(train), tuple(test), True)

    def _samples(self, root, kind, defect):
        samples = []
        for path in base.image_files(root / f"MT_{kind}" / "Imgs"):
            if path.suffix.lower() not in (".jpg", ".jpeg"):
                continue  # the masks lie beside the images
            mask = path.with_suffix(".png")
            if not mask.is_file():
                raise UserError(f"{path}: its mask is missing; expected {mask}")
            relative = path.relative_to(root).as_posix()
            samples.append(base.Sample(str(path), relative, defect, str(mask)))
        return samples
