"""Image files decoded by threads ahead of the computation; the unreadable are handed on as such.

For prediction: no TensorFlow, memory independent of the number of files, and a bad file stops
nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader, to_array
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, readable


class Decoded(NamedTuple):
    """A file as the detector and as a person sees it; or the reason why it cannot be read."""

    number: int  # of the file
    pixels: np.ndarray | None = None  # uint8 [crop, crop, 3]
    picture: Image.Image | None = None  # upright, RGB, own aspect
    size: tuple[int, int] = (0, 0)  # width and height of the upright image, pixels
    error: str = ""  # why it cannot be read; empty if it can
    remark: str = ""  # what the reader did to it, mostly nothing
    whole: Image.Image | None = None  # what tiles are cut from, upright, "L" or "RGB"


class PictureBatch(NamedTuple):
    """A batch for the detector and the files that its first rows are; the rest is padding."""

    images: np.ndarray  # uint8 [B, crop, crop, 3]
    files: list[Decoded]


def shaped(image: Image.Image, geometry: Geometry) -> np.ndarray:
    """As `to_array`, always of three channels: uint8 `[crop, crop, 3]`."""
    pixels = np.empty((geometry.crop, geometry.crop, 3), np.uint8)
    pixels[:] = to_array(image, geometry)
    return pixels


def _decode(
    number: int, path: str, geometry: Geometry, side: int, tiling: Tiling | None, reader: Reader
) -> Decoded:
    pixels = whole = None
    try:
        image, remark = reader.read(path)
        if tiling:
            tiling.check(*image.size)
            whole = image
        else:
            pixels = shaped(image, geometry)
    except UserError as error:
        reason = str(error).removeprefix(f"{readable(path)}: ")
        return Decoded(number, error=reason)
    picture = image.copy()
    picture.thumbnail((side, side), Image.Resampling.BILINEAR)
    return Decoded(
        number, pixels, picture.convert("RGB"), image.size, remark=remark, whole=whole
    )


def decode_files(
    paths: Sequence[str],
    geometry: Geometry,
    side: int,
    ahead: int,
    tiling: Tiling | None = None,
    reader: Reader = EVERY_DEPTH,
) -> Iterator[Decoded]:
    """Decodes files in order by one thread a core, at most `ahead` files before they are asked for.

    Args:
      paths: Image files.
      geometry: How they are shaped for the detector.
      side: Longest side of the picture kept for a person, pixels.
      ahead: Files.
      tiling: The results hold `whole` instead of `pixels`; smaller files cannot be read.
      reader: How files become pictures.
    """
    pending = deque()
    decode = partial(_decode, geometry=geometry, side=side, tiling=tiling, reader=reader)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for number, path in enumerate(paths):
                pending.append(pool.submit(decode, number, path))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def picture_batches(
    files: Iterable[Decoded], batch_size: int, on_bad: Callable[[Decoded], None]
) -> Iterator[PictureBatch]:
    """Batches of the readable files, the last one padded; the others go to `on_bad` as they come.

    Bad files take no rows, so every batch but the last is full.
    """
    rows: list[Decoded] = []

    def batch():
        images = np.zeros((batch_size, *rows[0].pixels.shape), np.uint8)
        for row, file in zip(images, rows):
            row[:] = file.pixels
        return PictureBatch(images, [file._replace(pixels=None) for file in rows])

    for file in files:
        if file.error:
            on_bad(file)
            continue
        rows.append(file)
        if len(rows) == batch_size:
            yield batch()
            rows = []
    if rows:
        yield batch()
