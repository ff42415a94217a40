"""Any folder: `train/good` (needed), `test/<good or defect>` and `ground_truth` (both optional).

Or a folder whose images lie directly in it: they are all taken for good ones.
"""

from imvad_jax.data.layouts import base, tree


class Folder(base.Layout):
    """A user's own parts: one directory, or one directory a category."""

    name = "folder"
    expected = (
        "train/good/*, optionally test/<good or defect>/* and ground_truth/<defect>/*; or image "
        "files directly in it, all of them good"
    )

    def categories(self, data_dir):
        root = base.require_directory(data_dir)
        if (root / "train").is_dir():
            return [root.resolve().name]
        found = tree.category_names(root)
        return found or ([root.resolve().name] if base.image_files(root) else [])

    def category(self, data_dir, name, seed=0):
        root = base.require_directory(data_dir)
        inside = "" if (root / "train").is_dir() else name
        if inside and not (root / inside / "train").is_dir():
            files = base.image_files(root)
            train = tuple(base.Sample(str(path), path.name) for path in files)
            return base.Category(self.name, name, train, (), False)
        category = tree.read(self.name, root, inside, masks="optional")
        return base.Category(self.name, name, category.train, category.test, category.has_masks)
