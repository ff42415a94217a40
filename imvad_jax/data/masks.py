"""Reads masks of defects: files of many kinds become bool arrays by one set of rules.

docs/datasets.md has the rules as a table. What a single file leaves open is decided once per
category (`survey`) and stored with the run, as a `MaskRule`.
"""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data.depth import deep_kind, deep_values
from imvad_jax.data.image_files import (
    MAX_MEGAPIXELS,
    Head,
    check_pages,
    open_image,
    orientation_of,
    read_head,
    turn,
)
from imvad_jax.errors import UserError, choose, listed, readable

VALUES = ("auto", "nonzero", "half")
ORIENTATIONS = ("auto", "stored", "shown")

_JPEG_CUT = 128  # in JPEG files values near a border ring around 0 and 255
_JPEG_RINGING = 15  # the largest value of a JPEG that marks nothing
_MOST_LABELS = 64  # values up to here are taken for numbers of classes


class Raw(NamedTuple):
    """A mask as its file stores it, before any rule."""

    values: np.ndarray  # [H, W] of grey, [H, W, 3] of colours that differ
    opaque: np.ndarray | None  # bool [H, W]; None where alpha does not vary
    group: str  # "grey", "deep", "float", "jpeg" or "colour"
    orientation: int  # of the file's own EXIF tag


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """How the masks of one category are read.

    Attributes:
      values: `nonzero` or `half` for all files alike, or `auto`: each group by its rule.
      cuts: Of groups that are cut at half of their largest value, that half; others count where
        they are not zero.
      turned: Whether a mask that has the size of its photo both as stored and as shown is turned
        with it.
    """

    values: str = "auto"
    cuts: tuple[tuple[str, float], ...] = ()
    turned: bool = True

    @property
    def words(self) -> str:
        """What counts as a defect, for the user."""
        cuts = {f"{cut:g}" for _, cut in self.cuts}
        return f"defect is {' or '.join(sorted(cuts))} and more" if cuts else "defect is not zero"

    def as_dict(self) -> dict:
        """For the record of a run."""
        return {"values": self.values, "cuts": dict(self.cuts), "turned": self.turned}


NON_ZERO = MaskRule()  # of layouts with a published format


def read_raw(path: str, max_megapixels: float = MAX_MEGAPIXELS) -> Raw:
    """Reads a mask file. Raises UserError: unreadable, several pages, NaN or negative values."""
    with open_image(path, max_megapixels) as image:
        check_pages(image)
        lossy = _is_lossy(image, path)
        kind = deep_kind(image)
        image.load()
        orientation = orientation_of(image, loaded=True)
        if kind:
            values, alpha = _split(deep_values(image, path))
            group = "deep" if kind == "integer" else "float"
        else:
            values, alpha = _eight_bits(image)
            group = "grey"
    if values.ndim == 3:
        if (values == values[..., :1]).all():
            values = values[..., 0]
        elif not lossy:
            group = "colour"
    if lossy:
        group = "jpeg"
        values = values.max(-1) if values.ndim == 3 else values
    opaque = None
    if alpha is not None and alpha.min() != alpha.max():
        opaque = alpha >= alpha.max() / 2
    return Raw(values, opaque, group, orientation)


def _is_lossy(image: Image.Image, path: str) -> bool:
    if image.format == "WEBP":
        with open(path, "rb") as file:
            return b"VP8L" not in file.read(256)
    return image.format in ("JPEG", "MPO", "JPEG2000", "HEIF")


def _split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if values.ndim == 2:
        return values, None
    if values.shape[-1] == 2:
        return values[..., 0], values[..., 1]
    return values[..., :3], values[..., 3] if values.shape[-1] == 4 else None


def _eight_bits(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode in ("P", "PA"):
        index = np.asarray(image.getchannel(0))
        image = image.convert("RGBA")
        colours = np.asarray(image)
        if (colours == colours[:1, :1]).all():
            return index, None  # a palette of one colour: the shape is in the indices
    if image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("L", "RGB") and "transparency" in image.info:
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    array = np.asarray(image)
    return (array, None) if array.ndim == 2 else _split(array)


def _border(values: np.ndarray) -> np.ndarray:
    sides = (values[0], values[-1], values[:, 0], values[:, -1])
    return np.concatenate([side.reshape(-1, 3) for side in sides])


def defect_pixels(raw: Raw, rule: MaskRule, path: str) -> tuple[np.ndarray, str]:
    """Where a mask marks a defect: bool `[H, W]`; and a remark for the user, mostly empty.

    Raises:
      UserError: a JPEG whose values are neither those of a mask nor of an empty one.
    """
    values, remark = raw.values, ""
    cut = dict(rule.cuts).get(raw.group)
    if raw.group == "colour" and rule.values == "auto":
        if raw.opaque is not None:
            return raw.opaque, ""
        background = np.zeros(3, values.dtype)
        if not (values == 0).all(-1).any():
            colours, counts = np.unique(_border(values), axis=0, return_counts=True)
            background = colours[counts.argmax()]
            remark = f"no black: the commonest colour of the border {background.tolist()} is good"
        return (values != background).any(-1), remark
    if values.ndim == 3:
        values = values.max(-1)
    if raw.group == "jpeg" and rule.values == "auto":
        largest = int(values.max())
        if _JPEG_RINGING < largest < _JPEG_CUT:
            raise UserError(
                f"{readable(path)}: a JPEG mask whose largest value is {largest}; expected at "
                f"least {_JPEG_CUT}, or at most {_JPEG_RINGING} if nothing is marked "
                "(--mask_values=nonzero or half reads it anyway)"
            )
        cut = _JPEG_CUT
    marked = values > 0 if cut is None else values >= cut
    if raw.opaque is not None:
        # Drawn in black on nothing, the shape is in alpha alone.
        drawn_in_black = not marked[raw.opaque].any()
        marked = raw.opaque if drawn_in_black else marked & raw.opaque
    return marked, remark


def read_mask(
    path: str,
    image_path: str,
    rule: MaskRule = NON_ZERO,
    max_megapixels: float = MAX_MEGAPIXELS,
    remarks: list[str] | None = None,
) -> np.ndarray:
    """Reads one mask as bool `[H, W]` of the size of its upright image.

    What the user should know of it is appended to `remarks`.

    Raises:
      UserError: the mask is unreadable or not of the size of its image; it is named.
    """
    raw, photo = read_raw(path, max_megapixels), read_head(image_path, max_megapixels)
    marked, remark = defect_pixels(raw, rule, path)
    if remark and remarks is not None:
        remarks.append(f"{readable(path)}: {remark}")
    orientation, size = raw.orientation, marked.shape[::-1]
    if orientation == 1 and photo.orientation != 1 and _follows(size, photo, rule.turned):
        orientation = photo.orientation
    if orientation != 1:
        turned = turn(Image.fromarray(marked.astype(np.uint8)), orientation)
        marked = np.asarray(turned).astype(bool)
    if marked.shape[::-1] != photo.shown:
        turned = f" (turned by its EXIF tag, stored {_words(photo.stored)})"
        raise UserError(
            f"{readable(path)}: mask of {_words(size)} pixels for an image of "
            f"{_words(photo.shown)}{turned if photo.orientation != 1 else ''}; they must be equal"
        )
    return marked


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _follows(size: tuple[int, int], photo: Head, otherwise: bool) -> bool:
    """Whether a mask was drawn on the stored pixels: by its size where that tells."""
    if photo.stored == photo.shown:
        return otherwise
    return size == photo.stored


def read_masks(
    paths: Sequence[str],
    image_path: str,
    rule: MaskRule = NON_ZERO,
    max_megapixels: float = MAX_MEGAPIXELS,
    remarks: list[str] | None = None,
) -> np.ndarray:
    """The union of an image's masks at its own size: bool `[H, W]`, empty where there is none.

    Raises UserError as `read_mask`.
    """
    if not paths:
        return np.zeros(read_head(image_path, max_megapixels).shown[::-1], bool)
    return np.logical_or.reduce(
        [read_mask(path, image_path, rule, max_megapixels, remarks) for path in paths]
    )


def survey(
    pairs: Iterable[tuple[str, str]],
    published: bool,
    values: str = "auto",
    orientation: str = "auto",
    max_megapixels: float = MAX_MEGAPIXELS,
) -> tuple[MaskRule, list[str]]:
    """Decides what is decided once per category, from all of its masks.

    Args:
      pairs: Paths of each mask and of its image.
      published: Whether the layout's authors say that non-zero is defect.
      values: The flag `--mask_values`: `auto`, `nonzero` or `half`.
      orientation: The flag `--mask_orientation`: `auto`, `stored` or `shown`.

    Returns:
      The rule, and notes for the user. Files that cannot be read are passed over; who reads the
      masks names them.

    Raises:
      UserError: an unknown value of a flag.
    """
    choose("--mask_values", values, VALUES)
    choose("--mask_orientation", orientation, ORIENTATIONS)
    pairs, notes = list(pairs), []
    turned, said = _find_orientation(pairs, orientation, max_megapixels)
    notes += said
    if values == "nonzero" or (values == "auto" and published):
        return MaskRule(values, (), turned), notes
    found = _gather_values((mask for mask, _ in pairs), max_megapixels)
    cuts = {}
    for group, seen in found.items():
        half = float(seen.max()) / 2
        if values == "half":
            cuts[group] = half
        elif group in ("grey", "float") and _is_smooth(seen):
            cuts[group] = half
            notes.append(
                f"masks hold {len(seen)} grey values with smooth steps between them: at least "
                f"{half:g}, half of the largest, is defect (--mask_values=nonzero takes all)"
            )
    return MaskRule(values, tuple(sorted(cuts.items())), turned), notes


def _gather_values(paths: Iterable[str], max_megapixels: float) -> dict[str, np.ndarray]:
    """The non-zero values of all masks by group, sorted; only groups where there are any."""
    found: dict[str, np.ndarray] = {}
    for path in paths:
        try:
            raw = read_raw(path, max_megapixels)
        except UserError:
            continue
        seen = np.unique(raw.values)
        found[raw.group] = np.union1d(found.get(raw.group, seen[:0]), seen[seen > 0])
    return {group: seen for group, seen in found.items() if len(seen)}


def _is_smooth(seen: np.ndarray) -> bool:
    """Whether non-zero values look like shades and not like numbers of classes."""
    if (seen == np.rint(seen)).all():
        return seen[-1] > _MOST_LABELS and bool((np.diff(seen) <= 1).any())
    return bool((np.diff(seen) <= 1.0001 * seen[-1] / 255).any())


def _find_orientation(pairs, orientation: str, max_megapixels: float) -> tuple[bool, list[str]]:
    stored = shown = 0
    undecided: list[str] = []
    for mask, photo in pairs:
        try:
            head = read_head(photo, max_megapixels)
            if head.orientation == 1:
                continue
            own = read_head(mask, max_megapixels)
        except UserError:
            continue
        if own.orientation != 1:
            continue
        if head.stored == head.shown:
            undecided.append(readable(os.path.basename(mask)))
        elif own.stored == head.stored:
            stored += 1
        elif own.stored == head.shown:
            shown += 1
    if orientation != "auto":
        return orientation == "stored", []
    turned = not shown or stored >= shown
    decided = bool(stored) != bool(shown)
    if not undecided or decided:
        return turned, []
    how = "turned with their photos" if turned else "taken as upright"
    return turned, [
        f"{len(undecided)} masks ({listed(undecided, 3)}) fit their photos both as stored and as "
        f"the photos' EXIF tags turn them; they are {how} (--mask_orientation=stored or shown)"
    ]
