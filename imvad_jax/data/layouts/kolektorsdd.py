"""KolektorSDD, commutators (Tabernik et al., J. Intell. Manuf. 2020): CC BY-NC-SA 4.0.

`kos01` to `kos50`, each with `Part*.jpg` and, beside it, `Part*_label.bmp` (non-zero is defect).
Which images are defective is told by the masks alone, so that all of them are read. The data has
no split for training on good images: the seed draws 80 % of them, as for `mtd`. The run stores
the drawn names.

`kos26` and `kos34` are left out: they hold the images of `kos01` and `kos27` once more, so that
images trained on would be tested, too.
"""

from imvad_jax.data.layouts import base
from imvad_jax.data.masks import read_mask

REPEATED = ("kos26", "kos34")


class KolektorSDD(base.Layout):
    """The layout of KolektorSDD: one category, `commutator`, and one kind of defect, `defect`."""

    name = "kolektorsdd"
    expected = "kos01 to kos50, each with Part*.jpg and masks Part*_label.bmp beside them"

    def categories(self, data_dir):
        return ["commutator"] if self._items(base.require_directory(data_dir)) else []

    def category(self, data_dir, name, seed=0):
        root = base.require_directory(data_dir)
        good, bad, not_used = [], [], []
        for item in self._items(root):
            for image, mask in base.image_mask_pairs(root / item, "_label.bmp", not_used):
                path, relative = str(image), base.name_of(image, root)
                if read_mask(str(mask), path).any():
                    bad.append(base.Sample(path, relative, "defect", (str(mask),)))
                else:
                    good.append(base.Sample(path, relative))
        train, test = base.draw_split(good, seed, root)
        return base.Category(
            self.name, name, tuple(train), tuple(bad + test), True, tuple(not_used)
        )

    def _items(self, root):
        return [n for n in base.subdirectories(root) if n.startswith("kos") and n not in REPEATED]
