"""MVTec LOCO AD (Bergmann et al., IJCV 2022): 5 categories, CC BY-NC-SA 4.0.

`<category>/train/good/*.png`, `<category>/test/<kind>/*.png` with the kinds `good`,
`logical_anomalies` and `structural_anomalies`, and several masks per image,
`<category>/ground_truth/<kind>/<name>/000.png`, `001.png` and so on, which are united. The images
of `<category>/validation/good` are not used, as in the benchmark.
"""

from imvad_jax.data.layouts import base, tree


class MVTecLOCO(base.Layout):
    """The layout of MVTec LOCO AD."""

    name = "mvtec_loco"
    expected = (
        "<category>/train/good/*.png, <category>/test/<good, logical_anomalies or "
        "structural_anomalies>/*.png, <category>/ground_truth/<kind>/<name>/*.png"
    )

    def categories(self, data_dir):
        return tree.category_names(base.require_directory(data_dir))

    def category(self, data_dir, name, seed=0):
        return tree.read(self.name, base.require_directory(data_dir), name)
