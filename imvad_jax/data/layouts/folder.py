"""Any folder: `train/good` (needed), `test/<good or defect>` and `ground_truth` (both optional)."""

from imvad_jax.data.layouts import base, tree


class Folder(base.Layout):
    """A user's own parts: one directory, or one directory a category."""

    name = "folder"
    expected = "train/good/*, optionally test/<good or defect>/* and ground_truth/<defect>/*"

    def categories(self, data_dir):
        root = base.require_directory(data_dir)
        if (root / "train").is_dir():
            return [root.resolve().name]
        return tree.category_names(root)

    def category(self, data_dir, name, seed=0):
        root = base.require_directory(data_dir)
        inside = "" if (root / "train").is_dir() else name
        category = tree.read(self.name, root, inside, masks="optional")
        return base.Category(self.name, name, category.train, category.test, category.has_masks)
