"""Tiles of a large image: their positions, and the combination of their scores and maps."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np

from imvad_jax.errors import UserError

MAX_MAP_SIDE = 2048  # values along the longest side of a picture's map: its memory is bounded
_LEAST = 1e-3  # pixels; the weight of a tile at its very border

P = TypeVar("P")  # what a caller tells pictures apart by


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Square tiles on a grid that covers a whole picture, numbered row by row. Units: pixels.

    The last row and column are moved inwards where they would stand out, so that all tiles are
    full. A picture must be at least as large as a tile.
    """

    tile: int
    overlap: int  # of neighbours; more where the last ones are moved inwards

    def __post_init__(self):
        if self.tile < 8:
            raise UserError(f"--tile={self.tile}: expected at least 8 pixels (0: no tiles)")
        if not 0 <= self.overlap < self.tile:
            raise UserError(
                f"--overlap={self.overlap}: expected 0 to {self.tile - 1}, less than --tile"
            )

    @classmethod
    def of(cls, tile: int, overlap: int | None = None) -> "Tiling":
        """Tiles that overlap by an eighth where nothing else is said. Raises UserError."""
        return cls(tile, tile // 8 if overlap is None else overlap)

    @classmethod
    def of_record(cls, record: Mapping) -> "Tiling | None":
        """The tiles that a run's record names; None where it looks at whole images."""
        return cls(record["tile"], record["overlap"]) if record.get("tile") else None

    def starts(self, length: int) -> np.ndarray:
        """The first pixel of each tile along a side of `length` pixels, ascending: int `[n]`."""
        count = -(-(length - self.tile) // (self.tile - self.overlap)) + 1
        return np.minimum(np.arange(count) * (self.tile - self.overlap), length - self.tile)

    def count(self, width: int, height: int) -> int:
        """Number of tiles of a picture."""
        return len(self.starts(width)) * len(self.starts(height))

    def box(self, number: int, width: int, height: int) -> tuple[int, int, int, int]:
        """Where a tile lies: left, top, right, bottom; the last two just outside."""
        columns = self.starts(width)
        row, column = divmod(number, len(columns))
        left, top = int(columns[column]), int(self.starts(height)[row])
        return left, top, left + self.tile, top + self.tile

    def map_shape(self, side: int, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of the map of a whole picture whose tiles have maps `[side, side]`.

        As fine as the maps of the tiles, but not finer than the picture, and at most
        `MAX_MAP_SIDE` values long.
        """
        scale = min(side / self.tile, 1, MAX_MAP_SIDE / max(width, height))
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def check(self, width: int, height: int) -> None:
        """Raises UserError where a picture is smaller than a tile."""
        if min(width, height) < self.tile:
            raise UserError(
                f"{width} x {height} pixels, smaller than a tile; expected at least "
                f"{self.tile} x {self.tile}"
            )


class BlendedMap:
    """The map of a whole picture, from those of its tiles as they come.

    Where tiles overlap their values are averaged; the weight of each falls linearly towards its
    border, where it knows least of what is around. The weights are products of one an axis, and so
    are their sums: nothing but `values` is kept of a picture.

    Attributes:
      values: float32 `[rows, columns]`, whole once every tile was added once.
    """

    def __init__(self, tiling: Tiling, side: int, width: int, height: int):
        self.tiling, self.side, self.width, self.height = tiling, side, width, height
        self.values = np.zeros(tiling.map_shape(side, width, height), np.float32)

    def add(self, number: int, tile_map: np.ndarray) -> None:
        """Adds the map `[side, side]` of a tile."""
        row, column = divmod(number, len(self.tiling.starts(self.width)))
        rows, columns = self.values.shape
        top, down = _spread(self.tiling, self.side, self.height, rows, row)
        left, across = _spread(self.tiling, self.side, self.width, columns, column)
        part = self.values[top : top + len(down), left : left + len(across)]
        part += down @ tile_map @ across.T


def assemble(
    tiles: Iterable[tuple[P, tuple[int, int], int, float, np.ndarray | None]], tiling: Tiling
) -> Iterator[tuple[P, float, np.ndarray | None]]:
    """Yields each picture with its score, that of its highest tile, and its blended map.

    Args:
      tiles: Picture, its width and height, number of the tile, its score and its map
        `[side, side]` (None: an image-only method); all tiles of a picture in order, then the next.
      tiling: Where the tiles lie.
    """
    best, blended = -np.inf, None
    for picture, size, number, score, tile_map in tiles:
        if number == 0:
            best = score
            blended = None if tile_map is None else BlendedMap(tiling, len(tile_map), *size)
        best = np.maximum(best, score)  # a score that is not a number stays
        if blended is not None and tile_map is not None:
            blended.add(number, tile_map)
        if number == tiling.count(*size) - 1:
            yield picture, float(best), None if blended is None else blended.values


def _centres(length: int, cells: int) -> np.ndarray:
    """Positions in the picture of the centres of a map's values along one side."""
    return (np.arange(cells) + 0.5) * (length / cells)


def _window(tiling: Tiling, start: int, centres: np.ndarray) -> np.ndarray:
    """The weight of a tile at each position: the distance to its border, 0 outside of it."""
    distance = np.minimum(centres - start, start + tiling.tile - centres)
    return np.where(distance >= 0, np.maximum(distance, _LEAST), 0)


@functools.lru_cache(maxsize=16)
def _window_sum(tiling: Tiling, length: int, cells: int) -> np.ndarray:
    centres = _centres(length, cells)
    windows = (_window(tiling, start, centres) for start in tiling.starts(length))
    return functools.reduce(np.add, windows)  # one after the other: they are many


@functools.lru_cache(maxsize=64)  # the rows of a picture use the same ones again
def _spread(
    tiling: Tiling, side: int, length: int, cells: int, number: int
) -> tuple[int, np.ndarray]:
    """The first value of the whole map that a tile reaches, and weights of its own: `[n, side]`.

    Linear interpolation, antialiased where the whole map is coarser; the rows add up to the tile's
    share of all weights.
    """
    start, centres = tiling.starts(length)[number], _centres(length, cells)
    weights = _window(tiling, start, centres)
    reached = np.flatnonzero(weights)
    if not len(reached):  # a tile smaller than a value of the whole map
        return 0, np.zeros((0, side), np.float32)
    share = weights[reached] / _window_sum(tiling, length, cells)[reached]
    scale = side / tiling.tile
    source = (centres[reached] - start) * scale
    reach = max(scale * length / cells, 1)
    matrix = 1 - np.abs(np.arange(side) + 0.5 - source[:, None]) / reach
    matrix[matrix < 1e-9] = 0  # rounding, where values lie on values
    matrix *= (share / matrix.sum(1))[:, None]
    return int(reached[0]), matrix.astype(np.float32)
