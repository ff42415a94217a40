"""MVTec AD (Bergmann et al., CVPR 2019): 15 categories, CC BY-NC-SA 4.0.

`<category>/train/good/*.png`, `<category>/test/<good or defect>/*.png`,
`<category>/ground_truth/<defect>/<name>_mask.png`. Any directory in this layout is read, also one
with other categories.
"""

from pathlib import Path

from imvad_jax.data.layouts import base
from imvad_jax.errors import UserError

CATEGORIES = (
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
)  # fmt: skip


class MVTecAD(base.Layout):
    """The layout of MVTec AD."""

    name = "mvtec_ad"
    expected = "<category>/train/good/*.png, <category>/test/<good or defect>/*.png"

    def categories(self, data_dir):
        root = base.require_directory(data_dir)
        return [n for n in base.subdirectories(root) if (root / n / "train").is_dir()]

    def category(self, data_dir, name, seed=0):
        return read_tree(self.name, base.require_directory(data_dir), name, masks="required")


def read_tree(dataset: str, root: Path, name: str, masks: str) -> base.Category:
    """Reads `root/name` (`root` itself for an empty name) in MVTec's layout.

    `masks`: `required` (each defective test image needs one) or `optional` (none at all, or all).

    Raises:
      UserError: no train/good image, an empty defect directory, a missing mask.
    """
    top = root / name if name else root

    def sample(path: Path, defect: str, mask: Path | None = None) -> base.Sample:
        relative = path.relative_to(root).as_posix()
        return base.Sample(str(path), relative, defect, str(mask) if mask else None)

    train = [sample(path, "good") for path in base.image_files(top / "train" / "good")]
    if not train:
        raise UserError(f"{top / 'train' / 'good'}: no good images to train on found there")
    test, missing = [], []
    for defect in base.subdirectories(top / "test"):
        files = base.image_files(top / "test" / defect)
        if not files:
            raise UserError(f"{top / 'test' / defect}: holds no images; remove or fill it")
        for path in files:
            mask = None
            if defect != "good":
                mask = _find_mask(top / "ground_truth" / defect, path)
                if mask is None:
                    missing.append(path)
            test.append(sample(path, defect, mask))
    any_mask = any(s.mask_path for s in test)
    if missing and (masks == "required" or any_mask):
        raise UserError(
            f"{missing[0]}: its mask is missing ({len(missing)} in all); expected "
            f"{top / 'ground_truth' / missing[0].parent.name / (missing[0].stem + '_mask.png')}"
        )
    return base.Category(dataset, name or root.name, tuple(train), tuple(test), any_mask)


def _find_mask(directory: Path, image: Path) -> Path | None:
    for stem in (image.stem + "_mask", image.stem):
        for suffix in (".png", ".bmp", ".tif", ".tiff"):
            if (directory / (stem + suffix)).is_file():
                return directory / (stem + suffix)
    return None
