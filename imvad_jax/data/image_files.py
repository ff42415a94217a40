"""Opens image files: supported formats, what is refused, EXIF orientation."""

import contextlib
import functools
import importlib
import os
import stat
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from imvad_jax.errors import UserError, readable

# The formats that Pillow is asked to recognise, by content. Others start programs (PostScript) or
# show a preview for the picture. A JPEG with a preview behind it (MPO) is opened as JPEG.
FORMATS = ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM"]
FORMATS_IN_WORDS = "PNG, JPEG, BMP, GIF, TIFF, WebP, JPEG 2000 and PGM/PPM"
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".gif", ".tif", ".tiff", ".webp",
    ".jp2", ".j2k", ".j2c", ".jpx", ".pgm", ".ppm", ".pbm", ".pnm",
)  # fmt: skip
HEIF_SUFFIXES = (".heic", ".heif", ".hif")
HEIF_HINT = "pip install pillow-heif reads HEIC"

MIN_SIDE = 8  # pixels; a smaller picture shows no part
MAX_MEGAPIXELS = 100.0  # line-scan pictures pass, a decompression bomb does not
# `open_image` has a limit of its own, which can be raised; Pillow's cannot be raised per file.
Image.MAX_IMAGE_PIXELS = None
# Pillow speaks of damaged metadata by warnings that name no file. Threads decode, and filters that
# are set for a while only are not safe with them.
warnings.filterwarnings("ignore", module=r"PIL\.")

# What Pillow raises on damaged files; a TypeError where a TIFF lacks its size.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, TypeError, OverflowError, MemoryError)

_MOST_PREVIEWS = 16  # smaller pages that may follow the picture in a TIFF
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Refused(ValueError):
    """A file could be read but is not used; `open_image` puts its name before the reason."""


class Head(NamedTuple):
    """What the head of a file says, without its pixels."""

    stored: tuple[int, int]  # width and height as the pixels are stored
    orientation: int  # of EXIF, 1 to 8; 1: stored upright

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        width, height = self.stored
        return (height, width) if self.orientation >= 5 else self.stored


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as its EXIF orientation (1 to 8) says that it is shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def grey_or_rgb(image: Image.Image) -> Image.Image:
    """A picture of 8 bits in mode "L" if it is grey, else "RGB"; alpha is left out."""
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")


def orientation_of(image: Image.Image, loaded: bool) -> int:
    """The EXIF orientation of a picture; 1 where it has none or an unknown one.

    Before the pixels are loaded, a tag that lies behind them is not seen (PNG).
    """
    # PNG's own getexif would decode all pixels to look for a tag behind them.
    exif = image.getexif() if loaded else Image.Image.getexif(image)
    found = exif.get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


@functools.cache
def has_heif() -> bool:
    """Whether pillow-heif is installed; the first call lets Pillow know of it."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def looks_like_heif(head: bytes) -> bool:
    """Whether the first bytes of a file are those of HEIC or HEIF."""
    brands = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
    return head[4:8] == b"ftyp" and head[8:12] in brands


@contextlib.contextmanager
def open_image(path: str, max_megapixels: float = MAX_MEGAPIXELS) -> Iterator[Image.Image]:
    """Opens an image file; its pixels are not decoded yet.

    Whatever Pillow raises while the file is open becomes a UserError that names it.

    Raises:
      UserError: the file is missing, no file, damaged, of no known format, or too large.
    """
    try:
        if not stat.S_ISREG(mode := os.stat(path).st_mode):  # a pipe would never end
            what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise Refused(f"{what}; expected an image file")
        with _opened(path) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise Refused(
                    f"{image.width} x {image.height} pixels; at most {max_megapixels:g} megapixels "
                    "are read (--max_megapixels)"
                )
            _check_parts(image)
            yield image
    except FileNotFoundError:
        link = " (a broken link)" if os.path.islink(path) else ""
        raise UserError(f"{readable(path)}: no such file{link}") from None
    except UnidentifiedImageError:
        raise UserError(f"{readable(path)}: not a readable image ({_unknown(path)})") from None
    except Refused as error:
        raise UserError(f"{readable(path)}: {error}") from None
    except DAMAGED as error:
        # Its text may name the path once more.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"{readable(path)}: not a readable image ({reason})") from None


def _check_parts(image: Image.Image) -> None:
    """Refuses a TIFF whose head tells of more rows than it has: Pillow leaves them black."""
    if isinstance(image, TiffImageFile) and image.format == "TIFF" and image.tile:
        rows = max(part.extents[3] for part in image.tile if part.extents)
        if rows < image.height:
            raise Refused(
                f"not a readable image (it has {rows} rows, but {image.height} by its head)"
            )


def _opened(path: str) -> Image.Image:
    with open(path, "rb") as file:
        heif = looks_like_heif(file.read(12)) and has_heif()
    return Image.open(path, formats=["HEIF"] if heif else FORMATS)


def _unknown(path: str) -> str:
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        return "the file is empty"
    if looks_like_heif(head):
        return HEIF_HINT
    return f"of no known format; read are {FORMATS_IN_WORDS}"


def read_head(path: str, max_megapixels: float = MAX_MEGAPIXELS) -> Head:
    """Size and orientation of a file. Raises UserError as `open_image`."""
    with open_image(path, max_megapixels) as image:
        return Head(image.size, orientation_of(image, loaded=False))


def check_pages(image: Image.Image) -> str:
    """A remark on the smaller pages that follow the picture in its file, empty without any.

    Scanners append previews to a TIFF, cameras to a JPEG (MPO): they hide nothing. Other pages, and
    the frames of an animation, would not be looked at: a file with such is refused. Leaves the
    image on its first page, with no pixels decoded.

    Raises:
      Refused: several pictures.
    """
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return ""
    if image.format != "TIFF":
        raise Refused("an animation, or several pictures; expected one")
    first, pages = image.size, 1
    try:
        # Page by page: the number of all of them would be counted to the end of the file.
        for number in range(1, _MOST_PREVIEWS + 1):
            image.seek(number)
            pages += 1
            if image.width > first[0] // 2 or image.height > first[1] // 2:
                raise Refused("several pages; expected one picture")
        raise Refused(f"more than {_MOST_PREVIEWS} pages; expected one picture")
    except EOFError:
        image.seek(0)
    return f"the first of {pages} pages; the others are smaller" if pages > 1 else ""
