"""Magnetic-tile defects (Huang, Qiu, Yuan, The Visual Computer 2020); no licence stated.

`MT_<kind>/Imgs/*.jpg` with a mask `*.png` of the same name (non-zero is defect). The data has no
split of its own: 80 % of the free (good) tiles are drawn by the seed for training, the rest and
all defective tiles are the test set. The run stores the drawn names.
"""

from imvad_jax.data.layouts import base

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
        not_used = []
        good = self._samples(root, "Free", "good", not_used)
        train, test = base.draw_split(good, seed, root / "MT_Free" / "Imgs")
        for kind in KINDS:
            test += self._samples(root, kind, kind.lower(), not_used)
        return base.Category(self.name, name, tuple(train), tuple(test), True, tuple(not_used))

    def _samples(self, root, kind, defect, not_used):
        folder = root / f"MT_{kind}" / "Imgs"
        return [
            base.Sample(str(image), base.name_of(image, root), defect, (str(mask),))
            for image, mask in base.image_mask_pairs(folder, ".png", not_used)
        ]
