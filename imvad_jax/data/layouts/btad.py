"""BTAD, beanTech (Mishra et al., ISIE 2021): categories 01, 02 and 03, CC BY-SA 4.0.

`<category>/train/ok/*`, `<category>/test/<ok or ko>/*`, `<category>/ground_truth/ko/<name>.*`.
Images are .bmp or .png, masks .png or (03) .bmp; an image's suffix need not be its mask's.
"""

from imvad_jax.data.layouts import base, tree


class BTAD(base.Layout):
    """The layout of the beanTech anomaly detection dataset; its one kind of defect is `ko`."""

    name = "btad"
    expected = "<category>/train/ok/*, <category>/test/<ok or ko>/*, <category>/ground_truth/ko/*"

    def categories(self, data_dir):
        return tree.category_names(base.require_directory(data_dir))

    def category(self, data_dir, name, seed=0):
        return tree.read(self.name, base.require_directory(data_dir), name, good="ok")
