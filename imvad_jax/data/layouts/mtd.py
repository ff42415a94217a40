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
        good = self._samples(root, "Free", "good")
        train, test = base.draw_split(good, seed, root / "MT_Free" / "Imgs")
        for kind in KINDS:
            test += self._samples(root, kind, kind.lower())
        return base.Category(self.name, name, tuple(train), tuple(test), True)

    def _samples(self, root, kind, defect):
        return [
            base.Sample(str(image), image.relative_to(root).as_posix(), defect, (str(mask),))
            for image, mask in base.image_mask_pairs(root / f"MT_{kind}" / "Imgs", ".png")
        ]
