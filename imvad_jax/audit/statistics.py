"""Trivial numbers of decoded images: what could tell two sets of images apart without a network.

Each is one number per image, of the pixels as a method sees them. All of them together cost a small
part of what decoding does: most work is done by Pillow on 8-bit values, threads share the images.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data.batches import ArrayImages, Images

THUMBNAIL = 32  # height and width in pixels of what perceptual hashes are made from
_BATCH = 32
_LEVELS = np.arange(256, dtype=np.float64)
_FRAME = 16  # the border is a sixteenth of the height and width
_LUMA = np.array([0.299, 0.587, 0.114])  # of ITU-R BT.601, as Pillow converts to grey

# What they are called. Brightness in grey levels from 0 to 255, contrast and sharpness, too.
MEAN, MEDIAN, CONTRAST = "mean grey", "median grey", "contrast"
SHARPNESS, BORDER = "sharpness", "border brightness"
RED, GREEN, BLUE = "mean red", "mean green", "mean blue"
NAMES = (MEAN, MEDIAN, CONTRAST, SHARPNESS, BORDER, RED, GREEN, BLUE)
COLOURS = (RED, GREEN, BLUE)


class Pixels(NamedTuple):
    """What was measured of the pixels of N images."""

    numbers: dict[str, np.ndarray]  # float64 [N] by name; NaN: the colours of a grey image
    thumbnails: np.ndarray  # uint8 [N, THUMBNAIL, THUMBNAIL], grey
    digests: list[str]  # N; equal for equal pixels, of which they hold the numbers and thumbnails


def measure(images: Images) -> Pixels:
    """The numbers of images at the size that a method sees, in file order, a few at a time.

    * mean, median and contrast (standard deviation) of the grey values;
    * sharpness: the root of the mean square of the Laplacian (4 neighbours) of the grey values;
    * border brightness: the mean of a frame of a sixteenth of the height and width;
    * the mean of each colour.

    Example:
      >>> found = measure(ArrayImages(np.full((2, 64, 64, 1), 100, np.uint8)))
      >>> found.numbers["mean grey"]
      array([100., 100.])
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if isinstance(images, ArrayImages):  # without a copy of each batch
            rows = list(pool.map(_of_image, images.images))
        else:
            rows = [
                row
                for batch in images.batches(_BATCH)
                for row in pool.map(_of_image, batch.images[batch.valid])
            ]
    values = np.array([row[0] for row in rows], np.float64).reshape(len(rows), len(NAMES))
    thumbnails = np.array([row[1] for row in rows], np.uint8)
    return Pixels(
        {name: values[:, column] for column, name in enumerate(NAMES)},
        thumbnails.reshape(len(rows), THUMBNAIL, THUMBNAIL),
        [row[2] for row in rows],
    )


def numbers_of(pixels: Iterable[np.ndarray], each: Callable = map) -> list[dict[str, float]]:
    """The numbers of single images, uint8 `[H, W, C]`, C 1 or 3, by name; see `measure`."""
    return [dict(zip(NAMES, row[0].tolist())) for row in each(_of_image, pixels)]


def _of_image(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """The numbers in the order of `NAMES`, the thumbnail and the digest of one image."""
    colours = np.full(3, np.nan)
    if image.shape[-1] == 1:
        picture = Image.fromarray(np.ascontiguousarray(image[..., 0]))
        small = picture.reduce(_factor(picture))
        mean = float(np.asarray(small).mean())
    else:
        rgb = Image.fromarray(image)
        small = rgb.reduce(_factor(rgb))
        colours = np.asarray(small).reshape(-1, 3).sum(0) / (small.width * small.height)
        mean = float(colours @ _LUMA)
        picture, small = rgb.convert("L"), small.convert("L")
    grey = np.asarray(picture)
    counts = np.array(picture.histogram(), np.float64)
    total = grey.size
    spread = np.sqrt(max(counts @ _LEVELS**2 / total - (counts @ _LEVELS / total) ** 2, 0.0))
    median = float(np.searchsorted(np.cumsum(counts), total / 2))
    shape = np.array([median, spread, _sharpness(grey), _border(grey)])
    numbers = np.concatenate([[mean], shape, colours])
    thumbnail = np.asarray(small.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    # Of equal pixels all of this is equal; of others it is not, and reading them all costs as much
    # as everything else.
    digest = hashlib.blake2b(thumbnail.tobytes() + shape.tobytes(), digest_size=16)
    if np.ptp(colours) > 0:
        digest.update(colours.tobytes())
    return numbers, thumbnail, digest.hexdigest()


def _factor(picture: Image.Image) -> int:
    """By which an image is shrunk before its mean is taken: a divisor of its height and width."""
    common = math.gcd(*picture.size)
    most = max(min(picture.size) // (2 * THUMBNAIL), 1)
    return max(factor for factor in range(1, most + 1) if common % factor == 0)


def _sharpness(grey: np.ndarray) -> float:
    values = grey.astype(np.int16)
    found = 4 * values[1:-1, 1:-1]
    for part in (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]):
        found -= part
    flat = found.astype(np.float32).ravel()
    return float(np.sqrt(np.dot(flat, flat) / max(flat.size, 1)))


def _border(grey: np.ndarray) -> float:
    rows, columns = (max(side // _FRAME, 1) for side in grey.shape)
    parts = (
        grey[:rows], grey[-rows:], grey[rows:-rows, :columns], grey[rows:-rows, -columns:]
    )  # fmt: skip
    return sum(int(part.sum()) for part in parts) / sum(part.size for part in parts)
