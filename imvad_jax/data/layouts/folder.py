"""Any folder: `train/good` (needed), `test/<good or defect>` and `ground_truth` (both optional).

Or a folder whose images lie directly in it: they are all taken for good ones.
"""

from imvad_jax.data.layouts import base, tree
from imvad_jax.data.listing import NotUsed
from imvad_jax.errors import readable


class Folder(base.Layout):
    """A user's own parts: one directory, or one directory per category."""

    name = "folder"
    published = False
    expected = (
        "train/good/*, optionally test/<good or defect>/* and ground_truth/<defect>/*; or image "
        "files directly in it, all of them good"
    )

    def categories(self, data_dir, recursive=False):
        root = base.require_directory(data_dir)
        own = [readable(root.resolve().name)]
        if (root / "train").is_dir():
            return own
        found = tree.category_names(root)
        return found or (own if tree.good_images(root, True, recursive, []) else [])

    def category(self, data_dir, name, seed=0, recursive=False):
        root = base.require_directory(data_dir)
        inside = "" if (root / "train").is_dir() else name
        if inside and not (root / inside / "train").is_dir():
            not_used: list[NotUsed] = []
            files = tree.good_images(root, True, recursive, not_used)
            train = tuple(base.Sample(path, base.name_of(path, root)) for path in files)
            return base.Category(self.name, name, train, (), False, tuple(not_used))
        category = tree.read(self.name, root, inside, own=True, recursive=recursive)
        return base.Category(
            self.name, name, category.train, category.test, category.has_masks, category.not_used
        )
