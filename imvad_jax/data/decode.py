"""The one decoder, Pillow: a file becomes a resized, cropped uint8 array."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from imvad_jax.errors import UserError

MAX_PIXELS = 100_000_000  # line-scan images pass, a decompression bomb does not
# Pillow refuses twice as much and warns in between, by filters that threads must not touch.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# What Pillow raises on damaged files; a TypeError where a TIFF lacks its size.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, TypeError)

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I")
_GREY = ("1", "L", "LA", "La", "F", *_SIXTEEN_BIT)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Images are resized to `size x size` (aspect ignored), then cropped at the centre to `crop`.

    `crop == size` means no crop. Units: pixels.
    """

    size: int
    crop: int

    def __post_init__(self):
        if self.size < 8:
            raise UserError(f"--image_size={self.size}: must be at least 8 pixels")
        if not 8 <= self.crop <= self.size:
            raise UserError(
                f"--crop_size={self.crop}: must lie between 8 and --image_size ({self.size})"
            )

    @property
    def offset(self) -> int:
        """First row and column of the crop, rounded as torchvision's CenterCrop does."""
        return round((self.size - self.crop) / 2)


def read_image(path: str) -> Image.Image:
    """Opens and decodes one image file fully: mode "L" or "RGB", upright by its EXIF tag.

    16-bit values are divided by 257, so that 65535 becomes 255; floating-point values must lie in
    0 ... 1.

    Raises:
      UserError: the file is missing, truncated, no image, or too large; it is named.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read"
                )
            image.load()
            image = ImageOps.exif_transpose(image)
            return _to_eight_bits(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Image.DecompressionBombError:
        raise UserError(
            f"{path}: not a readable image (too large; at most {MAX_PIXELS:,} pixels are read)"
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a readable image (of no known format)") from None
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or error  # else it names the path once more
        raise UserError(f"{path}: not a readable image ({reason})") from None


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.rint(np.asarray(image).astype(np.float64) / 257)
        return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"floating-point values {values.min():g} ... {values.max():g}; expected 0 ... 1"
            )
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    return image.convert("L" if image.mode in _GREY else "RGB")


def _shape(image: Image.Image, geometry: Geometry) -> Image.Image:
    # Pillow's bilinear is antialiased when shrinking.
    image = image.resize((geometry.size, geometry.size), Image.Resampling.BILINEAR)
    start, stop = geometry.offset, geometry.offset + geometry.crop
    return image.crop((start, start, stop, stop))


def to_array(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """What a method sees of an image: uint8 `[crop, crop, C]`; C is 1 for grey images, else 3."""
    array = np.asarray(_shape(image, geometry))
    return array[..., None] if array.ndim == 2 else array


def load_image(path: str, geometry: Geometry) -> np.ndarray:
    """Reads one image as `to_array` gives it. Raises UserError as `read_image`."""
    return to_array(read_image(path), geometry)


def read_mask(path: str, image_path: str) -> np.ndarray:
    """Reads one mask at its own size: bool `[H, W]`, non-zero is defect.

    Raises:
      UserError: the mask is unreadable or not of the size of its image.
    """
    mask, size = read_image(path), image_size(image_path)
    if mask.size != size:
        raise UserError(
            f"{path}: mask of {mask.size[0]} x {mask.size[1]} pixels for an image of "
            f"{size[0]} x {size[1]}; they must be equal"
        )
    array = np.asarray(mask)
    return array > 0 if array.ndim == 2 else array.any(-1)


def read_masks(paths: Sequence[str], image_path: str) -> np.ndarray:
    """The union of an image's masks at its own size: bool `[H, W]`, empty where there is none.

    Raises UserError as `read_mask`.
    """
    if not paths:
        return np.zeros(image_size(image_path)[::-1], bool)
    return np.logical_or.reduce([read_mask(path, image_path) for path in paths])


def image_size(path: str) -> tuple[int, int]:
    """Width and height of an upright image from the head of its file. Raises UserError."""
    try:
        with Image.open(path) as image:
            # That of PNG files would decode all pixels, to look for a tag behind them.
            exif = Image.Image.getexif(image)
            # EXIF orientations 5 to 8 lie on their side.
            return image.size[::-1] if exif.get(0x0112, 1) >= 5 else image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from None


def load_mask(paths: Sequence[str], image_path: str, geometry: Geometry) -> np.ndarray:
    """An image's masks as bool `[crop, crop]` by the benchmark's rule: bilinear, at least one half.

    No path (a good image) gives an empty mask. Raises UserError as `read_mask`.
    """
    if not paths:
        return np.zeros((geometry.crop, geometry.crop), bool)
    full = Image.fromarray(read_masks(paths, image_path).astype(np.uint8) * 255)
    return np.asarray(_shape(full, geometry)) >= 128


def load_whole_mask(paths: Sequence[str], image_path: str, size: tuple[int, int]) -> np.ndarray:
    """As `load_mask`, of the whole image at another width and height: bool `[height, width]`."""
    if not paths:
        return np.zeros(size[::-1], bool)
    full = Image.fromarray(read_masks(paths, image_path).astype(np.uint8) * 255)
    return np.asarray(full.resize(size, Image.Resampling.BILINEAR)) >= 128
