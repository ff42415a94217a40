"""The tree of MVTec AD, which other datasets share or follow closely.

`<category>/train/<good>/*`, `<category>/test/<kind>/*` and, for every defective test image, in
`<category>/ground_truth/<kind>/` a mask `<name>_mask.*` or `<name>.*`, or a directory `<name>` of
several masks.
"""

import os
from pathlib import Path

from imvad_jax.data.layouts import base
from imvad_jax.data.layouts.mask_files import masks_beside, masks_in_folder
from imvad_jax.data.listing import (
    ANOTHER_MASK,
    BELOW,
    ELSEWHERE,
    MASK_OF_GOOD,
    Listing,
    NotUsed,
    list_folder,
)
from imvad_jax.errors import UserError, readable


def category_names(root: Path) -> list[str]:
    """Names of the directories in `root` that hold a directory `train`, sorted."""
    return [name for name in base.subdirectories(root) if (root / name / "train").is_dir()]


def read(
    dataset: str,
    root: Path,
    name: str,
    *,
    good: str = "good",
    own: bool = False,
    recursive: bool = False,
) -> base.Category:
    """Reads `root/name` (`root` itself for an empty name).

    Args:
      good: what the dataset calls the directory of good images.
      own: a user's own parts: masks may be left out for all images, or lie beside them, and every
        file of the tree that is not used is named.
      recursive: takes the images of folders below those of the kinds, too.

    Raises:
      UserError: no good image to train on, an empty directory of a kind, a missing mask, or a mask
        without an image.
    """
    top = root / name if name else root
    not_used: list[NotUsed] = []
    train = good_images(top / "train" / good, own, recursive, not_used)
    if not train:
        raise UserError(
            f"{readable(top / 'train' / good)}: no good images to train on found there"
            f"{_hint(not_used)}"
        )
    test: list[base.Sample] = []
    for kind in base.subdirectories(top / "test"):
        folder, masks = top / "test" / kind, top / "ground_truth" / kind
        if kind == good:
            files = good_images(folder, own, recursive, not_used)
            test += [base.Sample(path, base.name_of(path, root), "good") for path in files]
            not_used += [NotUsed(p, MASK_OF_GOOD) for p in list_folder(masks, True).images]
        else:
            files, found = _defective(folder, masks, own, recursive, not_used)
            test += [
                base.Sample(path, base.name_of(path, root), readable(kind), found.get(path, ()))
                for path in files
            ]
        if not files:
            raise UserError(
                f"{readable(folder)}: holds no images; remove or fill it{_hint(not_used)}"
            )
    for kind in base.subdirectories(top / "ground_truth"):
        if kind != good and not (top / "test" / kind).is_dir():
            masks_in_folder(top / "ground_truth" / kind, [], [], top / "test" / kind, not_used)
    any_mask = any(sample.mask_paths for sample in test)
    missing = [s.path for s in test if s.label and not s.mask_paths]
    if missing and (any_mask or not own):
        stem, _ = os.path.splitext(os.path.relpath(missing[0], top / "test"))
        short = readable(os.path.basename(stem))
        where = top / "ground_truth" / os.path.dirname(stem)
        raise UserError(
            f"{readable(missing[0])}: its mask is missing ({len(missing)} in all); expected "
            f"{short}_mask.png or {short}.png, or several in {short}/, in {readable(where)}"
        )
    not_used += _strays(top, good, own)
    test.sort(key=lambda s: (s.defect, s.name))
    return base.Category(
        dataset,
        name or readable(root.name),
        tuple(base.Sample(path, base.name_of(path, root)) for path in train),
        tuple(test),
        any_mask,
        tuple(not_used),
    )


def good_images(folder: Path, own: bool, recursive: bool, not_used: list[NotUsed]) -> list[str]:
    """Paths of the good images in a folder; what else lies there is added to `not_used`.

    Of a user's `own` folder the masks that lie beside images are no images.
    """
    listing = list_folder(folder, recursive)
    beside = masks_beside(listing.images) if own else {}
    not_used += listing.not_used + [NotUsed(path, MASK_OF_GOOD) for path in beside]
    return [path for path in listing.images if path not in beside]


def _defective(folder: Path, masks: Path, own: bool, recursive: bool, not_used: list[NotUsed]):
    """Paths of the defective images of a kind, and their masks by path."""
    listing: Listing = list_folder(folder, recursive)
    not_used += listing.not_used
    beside = masks_beside(listing.images) if own else {}
    files = [path for path in listing.images if path not in beside]
    unread = [item.path for item in listing.not_used if item.why == BELOW]
    found = masks_in_folder(masks, files, unread, folder, not_used)
    for mask, image in beside.items():
        if image in found:
            not_used.append(NotUsed(mask, ANOTHER_MASK))
        else:
            found[image] = (mask,)
    return files, found


def _strays(top: Path, good: str, own: bool) -> list[NotUsed]:
    """Files that lie where no images are looked for, though somebody may expect it."""
    places = [top / "train", top / "test", top / "ground_truth"]
    found = []
    for place in places + [top] * own:
        listing = list_folder(place)
        loose = [NotUsed(path, ELSEWHERE, "", True) for path in listing.images]
        found += loose + [item for item in listing.not_used if item.why != BELOW]
    others = [top / "train" / n for n in base.subdirectories(top / "train") if n != good]
    if own:
        known = ("train", "test", "ground_truth")
        others += [top / n for n in base.subdirectories(top) if n not in known]
    for folder in others:
        images = list_folder(folder, recursive=True).images
        where = f"{ELSEWHERE} ({readable(os.path.relpath(folder, top))})"
        found += [NotUsed(path, where, "", True) for path in images]
    return found


def _hint(not_used: list[NotUsed]) -> str:
    below = sum(item.why == BELOW for item in not_used)
    return f"; {below} lie in folders below, --recursive takes them" if below else ""
