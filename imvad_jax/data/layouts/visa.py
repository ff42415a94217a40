"""VisA (Zou et al., ECCV 2022): 12 categories, CC BY 4.0.

`<category>/Data/Images/<Normal or Anomaly>/*.JPG`, `<category>/Data/Masks/Anomaly/*.png` (classes
of defects as small integers; non-zero is defect), and the split for training on good images in
`split_csv/1cls.csv`. The tree that the authors' script makes of them (`VisA_pytorch/1cls`, in the
layout of MVTec AD) is read, too.
"""

import csv

from imvad_jax.data.layouts import base, tree
from imvad_jax.data.layouts.mask_files import masks_in_folder
from imvad_jax.errors import UserError

COLUMNS = ("object", "split", "label", "image", "mask")
ROWS = (("train", "normal"), ("test", "normal"), ("test", "anomaly"))


class VisA(base.Layout):
    """The layout of VisA as downloaded; its one kind of defect is `anomaly`."""

    name = "visa"
    expected = (
        "<category>/Data/Images/<Normal or Anomaly>/*.JPG, <category>/Data/Masks/Anomaly/*.png "
        "and split_csv/1cls.csv"
    )

    def categories(self, data_dir):
        root = base.require_directory(data_dir)
        names = [n for n in base.subdirectories(root) if (root / n / "Data" / "Images").is_dir()]
        return names or tree.category_names(root)

    def category(self, data_dir, name, seed=0):
        root = base.require_directory(data_dir)
        data = root / name / "Data"
        if not (data / "Images").is_dir():
            return tree.read(self.name, root, name)
        split = root / "split_csv" / "1cls.csv"
        samples = {kind: [] for kind in ROWS}
        for line, row in _rows(split, name):
            kind = row["split"], row["label"]
            if kind not in samples:
                raise UserError(
                    f"{split}, line {line}: split '{kind[0]}' with label '{kind[1]}'; expected one "
                    f"of {', '.join('/'.join(row) for row in ROWS)}"
                )
            samples[kind].append(_sample(root, split, line, row))
        train, good, bad = (sorted(samples[kind], key=lambda s: s.name) for kind in ROWS)
        if not train:
            raise UserError(f"{split}: no good images of '{name}' to train on listed there")
        not_used = []
        shown = data / "Images" / "Anomaly"
        images = [str(path) for path in base.image_files(shown, not_used)]
        # Every mask must have an image, listed or not.
        masks_in_folder(data / "Masks" / "Anomaly", images, [], shown, not_used)
        return base.Category(
            self.name, name, tuple(train), tuple(bad + good), bool(bad), tuple(not_used)
        )


def _rows(split, name):
    if not split.is_file():
        raise UserError(
            f"{split}: no such file; the split of VisA is read from there (it is in the archive, "
            "and in the repository amazon-science/spot-diff)"
        )
    try:
        with split.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise UserError(
                    f"{split}: columns {', '.join(reader.fieldnames or ['none'])}; "
                    f"expected {', '.join(COLUMNS)}"
                )
            return [(reader.line_num, row) for row in reader if row["object"] == name]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{split}: not a readable CSV file ({error})") from None


def _sample(root, split, line, row):
    image = root / (row["image"] or "")
    if not image.is_file():
        raise UserError(f"{image}: no such file; {split}, line {line}, lists it")
    if row["label"] == "normal":
        return base.Sample(str(image), row["image"])
    mask = root / row["mask"] if row["mask"] else None
    if not mask or not mask.is_file():
        raise UserError(f"{image}: its mask is missing; {split}, line {line}, lists "
                        f"{mask or 'none'}")  # fmt: skip
    return base.Sample(str(image), row["image"], row["label"], (str(mask),))
