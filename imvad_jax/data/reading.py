"""Options for reading image files, and what was found in a category."""

import dataclasses
from collections.abc import Sequence

from imvad_jax.data.decode import EVERY_DEPTH, Reader
from imvad_jax.data.depth import find_full_scale
from imvad_jax.data.image_files import MAX_MEGAPIXELS
from imvad_jax.data.listing import NotUsed, summarize
from imvad_jax.data.masks import NON_ZERO, ORIENTATIONS, VALUES, MaskRule
from imvad_jax.errors import UserError, choose, listed

# Increased when the same files give other pixels or masks: older decoded caches are not used.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the flags of the same names say.

    Attributes:
      full_scale: What is white in files deeper than 8 bits; None: found from the good images.
      max_megapixels: Larger pictures are refused.
      mask_values: `auto`, `nonzero` or `half`: which of a mask's values are a defect.
      mask_orientation: `auto`, `stored` or `shown`: what a mask was drawn on where its photo is
        turned by EXIF and sizes do not tell.
      recursive: The images in folders below are taken, too.
      on_bad_image: `error`, or `skip`: images that cannot be read are left out and named.
    """

    full_scale: float | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    mask_values: str = "auto"
    mask_orientation: str = "auto"
    recursive: bool = False
    on_bad_image: str = "error"

    def __post_init__(self):
        choose("--mask_values", self.mask_values, VALUES)
        choose("--mask_orientation", self.mask_orientation, ORIENTATIONS)
        choose("--on_bad_image", self.on_bad_image, ("error", "skip"))
        if self.full_scale is not None and not 0 < self.full_scale < float("inf"):
            raise UserError(f"--full_scale={self.full_scale:g}: expected auto or a number above 0")
        if not 0 < self.max_megapixels < float("inf"):
            raise UserError(f"--max_megapixels={self.max_megapixels:g}: expected a number above 0")

    @property
    def decisive(self) -> dict:
        """What the pixels and masks of a category depend on, besides its files."""
        return dataclasses.asdict(self) | {"version": VERSION}

    def reader(self, good: Sequence[str]) -> Reader:
        """How the images of a category are read whose good images lie at these paths.

        Raises:
          UserError: no full scale can be found; see `find_full_scale`.
        """
        full_scale = self.full_scale
        if full_scale is None:
            full_scale = find_full_scale(good, self.max_megapixels)
        return Reader(full_scale, full_scale is not None, self.max_megapixels)


def parse_full_scale(text: str) -> float | None:
    """The value of `--full_scale`, None for `auto`. Raises UserError for what is no number."""
    if text == "auto":
        return None
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--full_scale={text}: expected auto or a number, such as 4095") from None


AS_IS = Reading()  # nothing said


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found when the files of a category were read; it goes into the record of a run.

    Attributes:
      reader: How its images were read.
      mask_rule: How its masks were read.
      images, masks: Numbers of files.
      regions, vanished: Defect regions at the masks' own size, and those of them of which no pixel
        is left at the size that the method sees; None without masks.
      notes: What the user should know.
      not_used: Files that were not looked at.
    """

    reader: Reader = EVERY_DEPTH
    mask_rule: MaskRule = NON_ZERO
    images: int = 0
    masks: int = 0
    regions: int | None = None
    vanished: int | None = None
    notes: tuple[str, ...] = ()
    not_used: tuple[NotUsed, ...] = ()

    @property
    def line(self) -> str:
        """What was found, in one line."""
        what = summarize(self.images, self.not_used)
        images, *rest = what.split("; ", 1)
        masks = f", {self.masks} masks ({self.mask_rule.words})" if self.masks else ""
        scale = self.reader.full_scale
        depth = f"; deeper than 8 bits, {scale:g} is white" if scale is not None else ""
        return "; ".join([images + masks + depth, *rest])

    def as_dict(self) -> dict:
        """For the record of a run and for the decoded cache."""
        return {
            "full_scale": self.reader.full_scale,
            "deep": self.reader.deep,
            "mask_rule": self.mask_rule.as_dict(),
            "images": self.images,
            "masks": self.masks,
            "regions": self.regions,
            "vanished": self.vanished,
            "notes": list(self.notes),
            "not_used": [item.as_dict() for item in self.not_used],
        }

    @classmethod
    def from_dict(cls, found: dict) -> "Found":
        """What `as_dict` gave; the files that are not used have their names only."""
        rule = found["mask_rule"]
        return cls(
            Reader(found["full_scale"], found["deep"]),
            MaskRule(rule["values"], tuple(sorted(rule["cuts"].items())), rule["turned"]),
            found["images"],
            found["masks"],
            found["regions"],
            found["vanished"],
            tuple(found["notes"]),
            tuple(NotUsed.from_dict(item) for item in found["not_used"]),
        )


def remarks_in_words(remarks: Sequence[tuple[str, str]]) -> list[str]:
    """Remarks on single files (name, remark), those of one kind together in one note."""
    groups: dict[str, list[str]] = {}
    for name, remark in remarks:
        kind = " ".join("N" if word.isdigit() else word for word in remark.split())
        groups.setdefault(kind, []).append(name)
    alone = {name: remark for name, remark in remarks}
    return [
        f"{names[0]}: {alone[names[0]]}" if len(names) == 1
        else f"{len(names)} pictures: {kind} ({listed(names, 3)})"
        for kind, names in groups.items()
    ]  # fmt: skip
