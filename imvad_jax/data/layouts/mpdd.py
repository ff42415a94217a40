"""MPDD, metal parts (Jezek et al., ICUMT 2021): 6 categories, CC BY-NC-SA 4.0.

The tree of MVTec AD: `<category>/train/good/*.png`, `<category>/test/<good or defect>/*.png`,
`<category>/ground_truth/<defect>/<name>_mask.png`.
"""

from imvad_jax.data.layouts import base, tree


class MPDD(base.Layout):
    """The layout of the Metal Parts Defect Detection dataset."""

    name = "mpdd"
    expected = "<category>/train/good/*.png, <category>/test/<good or defect>/*.png"

    def categories(self, data_dir):
        return tree.category_names(base.require_directory(data_dir))

    def category(self, data_dir, name, seed=0):
        return tree.read(self.name, base.require_directory(data_dir), name)
