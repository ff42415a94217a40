"""What image files say without being decoded: size, compression, time, camera."""

import datetime
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from imvad_jax.data.image_files import open_image, orientation_of
from imvad_jax.digests import digest_of_array
from imvad_jax.errors import UserError

# What they are called. Width and height are those of the upright image, in pixels.
WIDTH, HEIGHT, BYTES, PER_PIXEL = "width", "height", "file size", "bytes per pixel"
QUANTIZATION = "JPEG quantization"  # the mean of the first table: larger is coarser
STAMP, TAKEN = "time stamp", "EXIF time"  # seconds since 1970
EXPOSURE, APERTURE, ISO = "exposure time", "aperture", "ISO"
HAS_EXIF = "has EXIF"
NAMES = (
    WIDTH, HEIGHT, BYTES, PER_PIXEL, QUANTIZATION, STAMP, TAKEN, EXPOSURE, APERTURE, ISO, HAS_EXIF
)  # fmt: skip
# When and with what images were taken is told, but nothing that a network sees.
UNSEEN = (STAMP, TAKEN, EXPOSURE, APERTURE, ISO, HAS_EXIF)
SIZE, MODE, FORMAT, CAMERA = "size", "mode", "format", "camera"
TEXTS = (SIZE, MODE, FORMAT, CAMERA)

_MODES = {"1": "grey", "L": "grey", "LA": "grey", "La": "grey", "I;16": "grey", "I": "grey",
          "F": "grey"}  # fmt: skip


class FileFacts(NamedTuple):
    """What N files say."""

    numbers: dict[str, np.ndarray]  # float64 [N] by name; NaN: the file does not say
    texts: dict[str, list[str]]  # N each by name; empty: the file does not say
    contents: list[str]  # N; equal for equal bytes; empty where no file has as many


def read_facts(paths: Sequence[str]) -> FileFacts:
    """What the heads of files and the file system say; no pixels are decoded.

    Whole files are read where several have one size: others cannot be equal. What a file does not
    say, as one that cannot be opened, is NaN or empty.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(_head, paths))
        contents = [""] * len(paths)
        sizes = np.array([numbers.get(BYTES, np.nan) for numbers, _ in found])
        known, counts = np.unique(sizes[~np.isnan(sizes)], return_counts=True)
        several = np.flatnonzero(np.isin(sizes, known[counts > 1])).tolist()
        for number, digest in zip(several, pool.map(_content, [paths[n] for n in several])):
            contents[number] = digest
    numbers = {
        name: np.array([own.get(name, np.nan) for own, _ in found], np.float64) for name in NAMES
    }
    texts = {name: [own.get(name, "") for _, own in found] for name in TEXTS}
    return FileFacts(numbers, texts, contents)


def _content(path: str) -> str:
    try:
        return digest_of_array(np.fromfile(path, np.uint8))
    except OSError:
        return ""


def _head(path: str) -> tuple[dict[str, float], dict[str, str]]:
    """The numbers and texts of one file."""
    try:
        status = os.stat(path)
    except OSError:
        return {}, {}
    numbers = {BYTES: float(status.st_size), STAMP: status.st_mtime}
    try:
        with open_image(path, np.inf) as image:
            return numbers, _of_image(image, numbers)
    except (UserError, struct.error, LookupError):  # whoever decodes it says why
        return numbers, {}


def _of_image(image: Image.Image, numbers: dict[str, float]) -> dict[str, str]:
    """Adds the numbers of an opened image; returns its texts."""
    width, height = image.size
    if orientation_of(image, loaded=False) >= 5:
        width, height = height, width
    numbers |= {WIDTH: width, HEIGHT: height, PER_PIXEL: numbers[BYTES] / (width * height)}
    if tables := getattr(image, "quantization", None):
        numbers[QUANTIZATION] = float(np.mean(tables[min(tables)]))
    exif = Image.Image.getexif(image)  # PNG's own would decode all pixels
    numbers[HAS_EXIF] = float(bool(len(exif)))
    camera = ""
    if len(exif):
        camera = " ".join(str(exif.get(tag, "")).strip("\0 ") for tag in (
            ExifTags.Base.Make, ExifTags.Base.Model))  # fmt: skip
        inner = exif.get_ifd(ExifTags.IFD.Exif)
        taken = inner.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        for name, value in (
            (TAKEN, _time(taken)),
            (EXPOSURE, inner.get(ExifTags.Base.ExposureTime)),
            (APERTURE, inner.get(ExifTags.Base.FNumber)),
            (ISO, inner.get(ExifTags.Base.ISOSpeedRatings)),
        ):
            numbers[name] = _number(value)
    return {
        SIZE: f"{width} x {height}",
        MODE: _MODES.get(image.mode, "colour"),
        FORMAT: image.format or "",
        CAMERA: camera.strip(),
    }


def _time(text) -> float | None:
    try:
        return datetime.datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(
            tzinfo=datetime.UTC
        ).timestamp()  # fmt: skip
    except ValueError:
        return None


def _number(value) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return np.nan
    return found if np.isfinite(found) else np.nan
