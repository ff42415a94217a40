"""Which mask file belongs to which image, by their names, in trees like that of MVTec AD."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imvad_jax.data.listing import ANOTHER_MASK, BELOW, NotUsed, list_folder
from imvad_jax.data.masks import read_raw
from imvad_jax.errors import UserError, readable

ENDING = "_mask"  # behind the image's name, in any case
_SEEN_BESIDE = ("_label", "_gt", "_seg", "")  # further endings of masks that lie beside images
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif")


def masks_in_folder(
    directory: Path,
    images: Sequence[str],
    unread: Sequence[str],
    image_folder: Path,
    not_used: list[NotUsed],
) -> dict[str, tuple[str, ...]]:
    """The masks below `directory` by the path of their image.

    The mask of `image_folder/a/000.png` is `a/000_mask.*`, else `a/000.*`, else all files in
    `a/000/`, which are united. What is left over is added to `not_used`.

    Args:
      images: Paths of the images in `image_folder`.
      unread: Paths of images that are not used; their masks are not used, either.

    Raises:
      UserError: a mask without an image; it is named.
    """
    stems = {_stem(path, image_folder): path for path in images}
    apart = {_stem(path, image_folder) for path in unread}
    listing = list_folder(directory, recursive=True)
    not_used += listing.not_used
    candidates: dict[str, dict[int, list[str]]] = {}
    for path in listing.images:
        stem = _stem(path, directory)
        short = stem[: -len(ENDING)] if stem.lower().endswith(ENDING) else stem
        for rank, key in enumerate((short, stem, os.path.dirname(stem))):
            if key in stems:
                candidates.setdefault(stems[key], {}).setdefault(rank, []).append(path)
                break
            if key in apart:
                not_used.append(NotUsed(path, BELOW))
                break
        else:
            parts = (short, os.path.dirname(stem))
            raise UserError(
                f"{readable(path)}: a mask without an image; expected "
                + " or ".join(f"{readable(image_folder / part)}.*" for part in parts if part)
            )
    found = {}
    for image, ranks in candidates.items():
        best = min(ranks)
        chosen = sorted(ranks.pop(best), key=lambda path: (_is_lossy(path), path))
        if best < 2:  # one file, the best of several formats
            chosen, rest = chosen[:1], chosen[1:]
            not_used += [NotUsed(path, ANOTHER_MASK) for path in rest]
        not_used += [NotUsed(path, ANOTHER_MASK) for paths in ranks.values() for path in paths]
        found[image] = tuple(sorted(chosen))
    return found


def masks_beside(images: Sequence[str]) -> dict[str, str]:
    """Which of the files of a folder are masks of others, as label tools leave them: mask to image.

    `000_mask.png` is the mask of `000.*` by its name; `000_label.png`, `000_gt.png`, `000_seg.png`
    and a `000.png` beside `000.jpg` where it holds at most two values.
    """
    stems: dict[str, list[str]] = {}
    for path in images:
        stems.setdefault(os.path.splitext(path)[0], []).append(path)
    found = {}
    for path in images:
        stem = os.path.splitext(path)[0]
        if stem.lower().endswith(ENDING) and stem[: -len(ENDING)] in stems:
            found[path] = stems[stem[: -len(ENDING)]][0]
            continue
        for ending in _SEEN_BESIDE:
            others = [p for p in stems.get(stem[: len(stem) - len(ending)], ()) if p != path]
            if stem.lower().endswith(ending) and others and _is_flat(path):
                found[path] = others[0]
                break
    # Of two files with two values each neither is the other's mask.
    return {mask: image for mask, image in found.items() if image not in found}


def _stem(path: str, folder: Path) -> str:
    return os.path.splitext(os.path.relpath(path, folder))[0]


def _is_lossy(path: str) -> bool:
    return path.lower().endswith(_LOSSY)


def _is_flat(path: str) -> bool:
    """Whether a file holds at most two values, as no photograph does."""
    if _is_lossy(path):
        return False
    try:
        values = read_raw(path).values
    except UserError:
        return False
    return len(np.unique(values.reshape(-1, 3) if values.ndim == 3 else values, axis=0)) <= 2
