"""MVTec AD (Bergmann et al., CVPR 2019): 15 categories, CC BY-NC-SA 4.0.

`<category>/train/good/*.png`, `<category>/test/<good or defect>/*.png`,
`<category>/ground_truth/<defect>/<name>_mask.png`. Any directory in this layout is read, also one
with other categories.
"""

from imvad_jax.data.layouts import base, tree

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip


class MVTecAD(base.Layout):
    """The layout of MVTec AD."""

    name = "mvtec_ad"
    expected = "<category>/train/good/*.png, <category>/test/<good or defect>/*.png"

    def categories(self, data_dir):
        return tree.category_names(base.require_directory(data_dir))

    def category(self, data_dir, name, seed=0):
        return tree.read(self.name, base.require_directory(data_dir), name)
