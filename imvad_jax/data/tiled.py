"""Image files split into tiles, for a fit, an evaluation or a prediction.

A file is decoded as a whole, and only once for all of its tiles if these are read in order. Only a
few decoded files are held in memory.
"""

import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from imvad_jax.data.batches import Batch, padded_order
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader
from imvad_jax.data.image_files import read_head
from imvad_jax.data.stream import Decoded, decode_files, shaped
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, join_errors, readable
from imvad_jax.files import kept_if_possible, write_atomically

AHEAD = 2  # files decoded before they are asked for
KEEP_BATCH = 32
_PART = 1 << 24  # bytes read at a time


def cut(image: Image.Image, tiling: Tiling, number: int, geometry: Geometry) -> np.ndarray:
    """A tile as the detector sees it: uint8 `[crop, crop, 3]`."""
    return shaped(image.crop(tiling.box(number, *image.size)), geometry)


class TiledImages:
    """The tiles of image files, one file after the other, as a source of images.

    `len` and the numbers of `batches` count tiles; `take` and `locate` know whose they are.
    """

    def __init__(
        self,
        paths: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        tiling: Tiling,
        geometry: Geometry,
        *,
        kept: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        reader: Reader = EVERY_DEPTH,
    ):
        """Of files whose widths and heights are known; see `of_files`.

        `kept` holds tiles decoded before, uint8 `[N, S, S, 3]`, those of file i from `rows[i]` on.
        """
        self.paths, self.sizes, self.tiling, self.geometry = list(paths), sizes, tiling, geometry
        self.kept, self.rows, self.reader = kept, rows, reader
        self.remarks: dict[int, str] = {}  # by the number of the file, as they are decoded
        counts = np.array([tiling.count(*size) for size in sizes], int)
        self._ends = np.cumsum(counts)
        self._firsts = self._ends - counts

    @classmethod
    def of_files(
        cls,
        paths: Sequence[str],
        tiling: Tiling,
        geometry: Geometry,
        reader: Reader = EVERY_DEPTH,
    ) -> "TiledImages":
        """Reads the heads of the files.

        Raises:
          UserError: files that are no images, or smaller than a tile; all are named.
        """
        sizes, errors = [], []
        for path in paths:
            try:
                sizes.append(read_head(path, reader.max_megapixels).shown)
                tiling.check(*sizes[-1])
            except UserError as error:
                text = error.text
                if not text.startswith(readable(path)):  # of the tiling, which knows no path
                    text = f"{readable(path)}: {text}; choose a smaller --tile"
                errors.append(text)
        if errors:
            raise UserError(join_errors(errors))
        return cls(paths, sizes, tiling, geometry, reader=reader)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __repr__(self) -> str:
        tile = self.tiling.tile
        return f"TiledImages({len(self.paths)} pictures, {len(self)} tiles of {tile} x {tile})"

    @property
    def map_values(self) -> int:
        """How many values the maps of all pictures hold together."""
        shapes = (self.tiling.map_shape(self.geometry.crop, *size) for size in self.sizes)
        return sum(rows * columns for rows, columns in shapes)

    @property
    def decoded_bytes(self) -> int:
        """The most that the pictures hold that are decoded at a time."""
        most = max((width * height for width, height in self.sizes), default=0)
        # Pillow uses 4 bytes per pixel, and a copy while it rotates an image upright.
        return 2 * 4 * most * (AHEAD + 2)

    def take(self, numbers):
        """All tiles of the files of these numbers."""
        return TiledImages(
            [self.paths[number] for number in numbers],
            [self.sizes[number] for number in numbers],
            self.tiling,
            self.geometry,
            kept=self.kept,
            rows=None if self.rows is None else self.rows[np.asarray(numbers, int)],
            reader=self.reader,
        )

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each tile its file and its number among the tiles of that file: int `[n]` each."""
        files = np.searchsorted(self._ends, index, "right")
        return files, np.asarray(index) - self._firsts[files]

    def batches(self, batch_size, order=None):
        """Yields batches in order; out of file order it is slow unless the tiles are kept.

        Raises:
          UserError: a file cannot be read; it is named.
        """
        side = self.geometry.crop
        order = padded_order(len(self), batch_size, order)
        tiles = self._tiles(order[order >= 0])
        for index in order.reshape(-1, batch_size):
            images = np.zeros((batch_size, side, side, 3), np.uint8)
            for row in np.flatnonzero(index >= 0):
                images[row] = next(tiles)
            yield Batch(images, index >= 0, index)

    def _tiles(self, order: np.ndarray) -> Iterator[np.ndarray]:
        files, numbers = self.locate(order)
        if self.kept is not None and self.rows is not None:
            yield from (self.kept[row] for row in self.rows[files] + numbers)
            return
        changes = np.flatnonzero(np.diff(files)) + 1
        runs = [run for run in np.split(np.arange(len(order)), changes) if len(run)]
        paths = [self.paths[files[run[0]]] for run in runs]
        errors = []
        decoded = decode_files(
            paths, self.geometry, 1, AHEAD, tiling=self.tiling, reader=self.reader
        )
        for run, file in zip(runs, decoded):
            number = int(files[run[0]])
            path, size = readable(paths[file.number]), self.sizes[number]
            if file.remark:
                self.remarks[number] = file.remark
            if file.error:
                errors.append(f"{path}: {file.error}")
            elif file.size != size:  # a tag behind the pixels turns it
                errors.append(
                    f"{path}: {file.size[0]} x {file.size[1]} pixels, but {size[0]} x {size[1]} by "
                    "the head of the file; store it upright"
                )
            if errors or file.whole is None:  # all bad files are named at once
                continue
            for row in run:
                yield cut(file.whole, self.tiling, int(numbers[row]), self.geometry)
        if errors:
            raise UserError(join_errors(list(dict.fromkeys(errors))))

    def keep(self, path: Path | None, progress: Callable) -> "TiledImages":
        """The same tiles, decoded once and kept on disk, so that they are read fast in any order.

        Args:
          path: Where; made if it is not there, made anew if it is damaged. None, or where it cannot
            be written: a temporary file that goes with the program.
          progress: `(batches, total) -> batches`, shows how far it is.
        """

        def write(file):
            check = 0
            for batch in progress(self.batches(KEEP_BATCH), len(self)):
                tiles = batch.images[batch.valid].tobytes()
                check = zlib.crc32(tiles, check)
                file.write(tiles)
            file.write(_ending(check))

        side = self.geometry.crop
        shape = (len(self), side, side, 3)
        place = path
        there = path is not None and os.path.isfile(path)
        if path and not (there and _is_whole(path, int(np.prod(shape)))):
            place = path if kept_if_possible(lambda: write_atomically(path, write)) else None
        if place is None:
            place = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the array lives
            write(place)
            place.flush()
        kept = np.memmap(place, np.uint8, "r", shape=shape)
        return TiledImages(
            self.paths,
            self.sizes,
            self.tiling,
            self.geometry,
            kept=kept,
            rows=self._firsts,
            reader=self.reader,
        )

    def pictures(self, side: int) -> Iterator[np.ndarray]:
        """The whole pictures, at most `side` pixels long: uint8 `[h, w, 3]`."""
        for file in decode_files(
            self.paths, self.geometry, side, AHEAD, tiling=self.tiling, reader=self.reader
        ):
            if file.error:
                raise UserError(f"{readable(self.paths[file.number])}: {file.error}")
            yield np.asarray(file.picture)


def _ending(check: int) -> bytes:
    """What follows the tiles in a file of them: their CRC-32, in words."""
    return b"crc32 of the tiles: %08x\n" % check


def _is_whole(path: Path, size: int) -> bool:
    """Whether a file holds `size` bytes of tiles that are as they were written.

    Files without an ending, of earlier versions, are only measured.
    """
    found = os.path.getsize(path)
    if found == size:
        return True
    check = 0
    with open(path, "rb") as file:
        for start in range(0, size, _PART):
            check = zlib.crc32(file.read(min(_PART, size - start)), check)
        if file.read() == _ending(check):
            return True
    logging.warning("%s: the stored tiles are damaged; they are rebuilt", path)
    return False


class TileBatch(NamedTuple):
    """A batch for the detector, and of each of its first rows the file and the tile's number."""

    images: np.ndarray  # uint8 [B, crop, crop, 3]; what has no tile is padding
    tiles: list[tuple[Decoded, int]]


def tile_batches(
    files: Iterable[Decoded],
    tiling: Tiling,
    geometry: Geometry,
    batch_size: int,
    on_bad: Callable[[Decoded], None],
) -> Iterator[TileBatch]:
    """Batches of the tiles of readable files, the last one padded; the others go to `on_bad`."""
    tiles: list[tuple[Decoded, int]] = []
    shape = (batch_size, geometry.crop, geometry.crop, 3)
    images = np.zeros(shape, np.uint8)
    for file in files:
        whole, file = file.whole, file._replace(whole=None)
        if whole is None:
            on_bad(file)
            continue
        for number in range(tiling.count(*file.size)):
            images[len(tiles)] = cut(whole, tiling, number, geometry)
            tiles.append((file, number))
            if len(tiles) == batch_size:
                yield TileBatch(images, tiles)
                images, tiles = np.zeros(shape, np.uint8), []
    if tiles:
        yield TileBatch(images, tiles)
