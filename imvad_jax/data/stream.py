"""Pictures decoded by threads ahead of the computation; the unreadable are handed on as such.

For prediction: no TensorFlow, memory independent of the number of pictures, and a bad one stops
nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data.arrays import as_picture
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader, to_array
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, readable

Source = str | os.PathLike | Any  # a file, or what `as_picture` takes


class Decoded(NamedTuple):
    """A picture as the detector and as a person sees it; or the reason why it cannot be read."""

    number: int  # of the picture
    pixels: np.ndarray | None = None  # uint8 [crop, crop, 3]
    picture: Image.Image | None = None  # upright, RGB, own aspect
    size: tuple[int, int] = (0, 0)  # width and height of the upright image, pixels
    error: str = ""  # why it cannot be read; empty if it can
    remark: str = ""  # what the reader did to it, mostly nothing
    whole: Image.Image | None = None  # what tiles are cut from, upright, "L" or "RGB"
    numbers: dict[str, float] | None = None  # trivial numbers of its pixels, where they are asked


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
    number: int, source: Source, geometry: Geometry, side: int, *, tiling: Tiling | None,
    reader: Reader,
) -> Decoded:  # fmt: skip
    pixels = whole = None
    is_file = isinstance(source, str | os.PathLike)
    try:
        image, remark = reader.read(source) if is_file else (as_picture(source), "")
        if tiling:
            tiling.check(*image.size)
            whole = image
        else:
            pixels = shaped(image, geometry)
    except UserError as error:
        reason = error.text.removeprefix(f"{readable(source)}: " if is_file else "")
        return Decoded(number, error=reason)
    picture = None
    if side:
        picture = image.copy()
        picture.thumbnail((side, side), Image.Resampling.BILINEAR)
        picture = picture.convert("RGB")
    return Decoded(number, pixels, picture, image.size, remark=remark, whole=whole)


def decode_files(
    paths: Iterable[Source],
    geometry: Geometry,
    side: int,
    ahead: int,
    *,
    tiling: Tiling | None = None,
    reader: Reader = EVERY_DEPTH,
) -> Iterator[Decoded]:
    """Decodes pictures in order by one thread a core, at most `ahead` before they are asked for.

    Args:
      paths: Image files, or pictures in memory as `as_picture` takes them.
      geometry: How they are shaped for the detector.
      side: Longest side of the picture kept for a person, pixels; 0: none is kept.
      ahead: Pictures; 0: each is decoded when it is asked for, without a thread.
      tiling: The results hold `whole` instead of `pixels`; smaller files cannot be read.
      reader: How files become pictures.
    """
    decode = partial(_decode, geometry=geometry, side=side, tiling=tiling, reader=reader)
    if not ahead:
        yield from (decode(number, path) for number, path in enumerate(paths))
        return
    pending = deque()
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
