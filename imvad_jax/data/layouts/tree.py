"""The tree of MVTec AD, which other datasets share or follow closely.

`<category>/train/<good>/*`, `<category>/test/<kind>/*` and, for every defective test image, in
`<category>/ground_truth/<kind>/` a mask `<name>_mask.*` or `<name>.*`, or a directory `<name>` of
several masks.
"""

from pathlib import Path

from imvad_jax.data.layouts import base
from imvad_jax.errors import UserError

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")


def category_names(root: Path) -> list[str]:
    """Names of the directories in `root` that hold a directory `train`, sorted."""
    return [name for name in base.subdirectories(root) if (root / name / "train").is_dir()]


def read(
    dataset: str, root: Path, name: str, good: str = "good", masks: str = "required"
) -> base.Category:
    """Reads `root/name` (`root` itself for an empty name).

    Args:
      good: what the dataset calls the directory of good images.
      masks: `required` (each defective test image needs one) or `optional` (none at all, or all).

    Raises:
      UserError: no good image to train on, an empty directory of a kind, a missing mask, or a mask
        without an image.
    """
    top = root / name if name else root

    def sample(path: Path, defect: str, found: tuple[str, ...] = ()) -> base.Sample:
        return base.Sample(str(path), path.relative_to(root).as_posix(), defect, found)

    train = [sample(path, "good") for path in base.image_files(top / "train" / good)]
    if not train:
        raise UserError(f"{top / 'train' / good}: no good images to train on found there")
    test, missing = [], []
    for kind in base.subdirectories(top / "test"):
        files = base.image_files(top / "test" / kind)
        if not files:
            raise UserError(f"{top / 'test' / kind}: holds no images; remove or fill it")
        if kind == good:
            test += [sample(path, "good") for path in files]
            continue
        for path in files:
            found = _find_masks(top / "ground_truth" / kind, path)
            if not found:
                missing.append(path)
            test.append(sample(path, kind, found))
    any_mask = any(s.mask_paths for s in test)
    if missing and (masks == "required" or any_mask):
        first = missing[0]
        raise UserError(
            f"{first}: its mask is missing ({len(missing)} in all); expected {first.stem}_mask.png "
            f"or {first.stem}.png, or several in {first.stem}/, in "
            f"{top / 'ground_truth' / first.parent.name}"
        )
    for kind in base.subdirectories(top / "ground_truth"):
        if kind != good:
            base.require_images(top / "ground_truth" / kind, top / "test" / kind)
    test.sort(key=lambda s: (s.defect, s.name))
    return base.Category(dataset, name or root.name, tuple(train), tuple(test), any_mask)


def _find_masks(directory: Path, image: Path) -> tuple[str, ...]:
    for stem in (image.stem + "_mask", image.stem):
        for suffix in MASK_SUFFIXES:
            if (directory / (stem + suffix)).is_file():
                return (str(directory / (stem + suffix)),)
    return tuple(str(path) for path in base.image_files(directory / image.stem))
