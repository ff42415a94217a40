"""The decoder, based on Pillow: turns a file into a resized, cropped uint8 array."""

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data.depth import (
    FULL_SCALES,
    deep_kind,
    deep_values,
    to_eight_bits,
    without_alpha,
)
from imvad_jax.data.image_files import (
    MAX_MEGAPIXELS,
    MIN_SIDE,
    Refused,
    check_pages,
    grey_or_rgb,
    open_image,
    orientation_of,
    turn,
)
from imvad_jax.errors import UserError, choose

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
MASK_RULES = ("half", "nearest", "full")


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Images are resized to `size x size` (aspect ignored), then cropped at the centre to `crop`.

    `crop == size` means no crop. Units: pixels. Images are resized by the filter `resize`, a key of
    `FILTERS`; masks as `mask_rule` says, one of `MASK_RULES` (see `mask_arrays.shrink`).
    """

    size: int
    crop: int
    resize: str = "bilinear"
    mask_rule: str = "half"

    def __post_init__(self):
        if self.size < 8:
            raise UserError(f"--image_size={self.size}: must be at least 8 pixels")
        if not 8 <= self.crop <= self.size:
            raise UserError(
                f"--crop_size={self.crop}: must lie between 8 and --image_size ({self.size})"
            )
        choose("--resize", self.resize, FILTERS)
        choose("--mask_rule", self.mask_rule, MASK_RULES)

    @classmethod
    def of(cls, config) -> "Geometry":
        """What the configuration of a method (`methods.DetectorConfig`) says."""
        return cls(config.image_size, config.input_size, config.resize, config.mask_rule)

    @property
    def offset(self) -> int:
        """First row and column of the crop, rounded as torchvision's CenterCrop does."""
        return round((self.size - self.crop) / 2)


class Picture(NamedTuple):
    """A picture as it was read: mode "L" or "RGB", upright."""

    image: Image.Image
    remark: str = ""  # what was done to it, for the user; mostly empty


@dataclasses.dataclass(frozen=True)
class Reader:
    """How image files become pictures of 8 bits.

    `full_scale` is the value that is white in files deeper than 8 bits; None: 65535 for integers, 1
    for floating-point values. `deep` is False where no good picture was that deep, so that nothing
    is known of their full scale: files that do not use the upper bits are refused then.
    `max_megapixels` bounds width times height.
    """

    full_scale: float | None = None
    deep: bool = True
    max_megapixels: float = MAX_MEGAPIXELS

    @classmethod
    def of_record(cls, record: dict, max_megapixels: float = MAX_MEGAPIXELS) -> "Reader":
        """The reader of a run's record; runs older than `full_scale` read all depths."""
        full_scale = record.get("full_scale")
        deep = full_scale is not None or "full_scale" not in record
        return cls(full_scale, deep, max_megapixels)

    def read(self, path: str) -> Picture:
        """Decodes one image file fully.

        Raises:
          UserError: the file is missing, damaged, no image, too large or too small, holds several
            pictures, or values that cannot be scaled; it is named.
        """
        with open_image(path, self.max_megapixels) as image:
            remarks = [check_pages(image)]
            kind = deep_kind(image)
            image.load()
            orientation = orientation_of(image, loaded=True)
            if kind:
                values = without_alpha(deep_values(image, path))
                if not self.deep and kind == "integer" and values.max() <= FULL_SCALES[-2]:
                    raise Refused(
                        f"16 bits, but no value above {values.max()}, and the detector was fitted "
                        "on pictures of 8 bits; say by --full_scale=N what white is"
                    )
                pixels, brighter = to_eight_bits(values, self.full_scale)
                if brighter and self.full_scale is not None:
                    remarks.append(f"{brighter} values above white ({self.full_scale:g}) cut off")
                found = Image.fromarray(pixels)
            else:
                found = grey_or_rgb(image)
            if min(found.size) < MIN_SIDE:
                raise Refused(
                    f"{found.width} x {found.height} pixels; expected at least "
                    f"{MIN_SIDE} x {MIN_SIDE}"
                )
            return Picture(turn(found, orientation), "; ".join(filter(None, remarks)))


EVERY_DEPTH = Reader()  # each type by its own full scale


def read_image(path: str, reader: Reader = EVERY_DEPTH) -> Image.Image:
    """The picture of one file, mode "L" or "RGB", upright. Raises UserError as `Reader.read`."""
    return reader.read(path).image


def shape(image: Image.Image, geometry: Geometry) -> Image.Image:
    """The picture resized and cropped."""
    # Both of Pillow's filters are antialiased when shrinking.
    return crop(image.resize((geometry.size, geometry.size), FILTERS[geometry.resize]), geometry)


def crop(image: Image.Image, geometry: Geometry) -> Image.Image:
    """The centre of a picture that was resized."""
    start, stop = geometry.offset, geometry.offset + geometry.crop
    return image.crop((start, start, stop, stop))


def to_array(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """What a method sees of an image: uint8 `[crop, crop, C]`; C is 1 for grey images, else 3."""
    array = np.asarray(shape(image, geometry))
    return array[..., None] if array.ndim == 2 else array


def load_image(path: str, geometry: Geometry, reader: Reader = EVERY_DEPTH) -> np.ndarray:
    """Reads one image as `to_array` gives it. Raises UserError as `Reader.read`."""
    return to_array(read_image(path, reader), geometry)
