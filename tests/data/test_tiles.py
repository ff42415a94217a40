"""Where tiles lie, and maps blended from those of tiles, against brute force."""

import tracemalloc

import numpy as np
import pytest

from imvad_jax.data.tiles import MAX_MAP_SIDE, BlendedMap, Tiling, assemble
from imvad_jax.errors import UserError


def blend(tiling, width, height, tile_maps) -> np.ndarray:
    blended = BlendedMap(tiling, len(tile_maps[0]), width, height)
    for number, tile_map in enumerate(tile_maps):
        blended.add(number, tile_map)
    return blended.values


def tile_maps_of(picture: np.ndarray, tiling: Tiling) -> list[np.ndarray]:
    height, width = picture.shape
    boxes = [tiling.box(n, width, height) for n in range(tiling.count(width, height))]
    return [picture[top:bottom, left:right] for left, top, right, bottom in boxes]


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 3), (8, 7), (16, 4), (64, 16)])
def test_full_tiles_cover_every_pixel_and_overlap_at_least_as_asked(tile, overlap):
    tiling = Tiling(tile, overlap)
    for length in range(tile, 5 * tile + 3):
        starts = tiling.starts(length)
        assert starts[0] == 0 and starts[-1] == length - tile
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= tile - overlap).all()
        if len(steps):  # none too many
            assert len(starts) == 1 + np.ceil((length - tile) / (tile - overlap))
    width, height = 3 * tile + 1, 2 * tile
    seen = np.zeros((height, width), int)
    for part in tile_maps_of(seen, tiling):
        assert part.shape == (tile, tile)
        part += 1
    assert seen.min() == 1 if overlap == 0 else seen.min() >= 1


def test_with_no_overlap_maps_are_pasted_exactly():
    rng, tiling = np.random.default_rng(0), Tiling(16, 0)
    picture = rng.normal(size=(32, 64)).astype(np.float32)
    np.testing.assert_array_equal(blend(tiling, 64, 32, tile_maps_of(picture, tiling)), picture)
    # Tiles of 16 pixels whose maps have 8 x 8 values: half the picture's size.
    maps = [rng.normal(size=(8, 8)).astype(np.float32) for _ in range(8)]
    found = blend(tiling, 64, 32, maps)
    assert found.shape == (16, 32)
    for number, tile_map in enumerate(maps):
        row, column = divmod(number, 4)
        part = found[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        np.testing.assert_array_equal(part, tile_map)


@pytest.mark.parametrize(("width", "height", "overlap"), [(40, 37, 5), (16, 50, 15), (61, 16, 0)])
def test_overlaps_are_averaged_by_the_distance_to_the_border(width, height, overlap):
    tiling, rng = Tiling(16, overlap), np.random.default_rng(1)
    count = tiling.count(width, height)
    maps = [rng.random((16, 16), np.float32) for _ in range(count)]
    total, weights = np.zeros((height, width)), np.zeros((height, width))
    for number, tile_map in enumerate(maps):
        left, top, _, _ = tiling.box(number, width, height)
        for y in range(16):
            for x in range(16):
                weight = min(y + 0.5, 15.5 - y) * min(x + 0.5, 15.5 - x)
                total[top + y, left + x] += weight * tile_map[y, x]
                weights[top + y, left + x] += weight
    np.testing.assert_allclose(blend(tiling, width, height, maps), total / weights, rtol=1e-5)


@pytest.mark.parametrize("side", [16, 32, 64, 128])  # of the maps of tiles of 64 pixels
@pytest.mark.parametrize("size", [(200, 150), (64, 333), (251, 97)])
def test_tiles_of_a_smooth_map_give_the_map(side, size):
    width, height = size

    def smooth(x, y):
        return np.sin(x / 40) * np.cos(y / 30)

    tiling, maps = Tiling(64, 16), []
    for number in range(tiling.count(width, height)):
        left, top, _, _ = tiling.box(number, width, height)
        at = (np.arange(side) + 0.5) * 64 / side
        maps.append(smooth(left + at[None], top + at[:, None]).astype(np.float32))
    found = blend(tiling, width, height, maps)
    scale = min(side / 64, 1)
    assert found.shape == (round(height * scale), round(width * scale))
    x = (np.arange(found.shape[1]) + 0.5) * width / found.shape[1]
    y = (np.arange(found.shape[0]) + 0.5) * height / found.shape[0]
    inner = np.s_[1:-1, 1:-1]  # at the border the outermost value is repeated
    np.testing.assert_allclose(found[inner], smooth(x[None], y[:, None])[inner], atol=0.02)
    constant = blend(tiling, width, height, [np.ones((side, side), np.float32)] * len(maps))
    np.testing.assert_allclose(constant, 1, rtol=1e-5)


def test_memory_does_not_grow_with_the_picture():
    tiling, tile_map = Tiling(512, 64), np.ones((64, 64), np.float32)
    peaks = {}
    for side in (17_000, 30_000):
        tracemalloc.start()
        blended = BlendedMap(tiling, 64, side, side)
        for number in range(tiling.count(side, side)):
            blended.add(number, tile_map)
        peaks[side] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert blended.values.shape == (MAX_MAP_SIDE, MAX_MAP_SIDE)
        np.testing.assert_allclose(blended.values, 1, rtol=1e-5)
        del blended
    assert peaks[30_000] < 1.02 * peaks[17_000] and peaks[30_000] < 1.1 * 4 * MAX_MAP_SIDE**2


def test_a_picture_gets_the_score_of_its_highest_tile_and_its_own_map():
    tiling = Tiling(8, 0)
    maps = {"a": np.full((8, 8), 1.0, np.float32), "b": np.full((8, 8), 2.0, np.float32)}
    tiles = [("a", (16, 8), n, score, maps["a"]) for n, score in enumerate((3.0, 1.0))]
    tiles += [("b", (8, 24), n, score, maps["b"]) for n, score in enumerate((1.0, np.nan, 2.0))]
    tiles.append(("c", (8, 8), 0, 5.0, None))
    found = list(assemble(tiles, tiling))
    assert [picture for picture, _, _ in found] == ["a", "b", "c"]
    np.testing.assert_array_equal([score for _, score, _ in found], [3, np.nan, 5])
    assert found[0][2].shape == (8, 16) and (found[0][2] == 1).all()
    assert found[1][2].shape == (24, 8) and (found[1][2] == 2).all() and found[2][2] is None


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [(7, 0, "tile=7"), (-1, 0, "tile=-1"), (64, 64, "overlap=64"), (64, -1, "overlap=-1")],
)
def test_tiles_that_make_no_sense(tile, overlap, message):
    with pytest.raises(UserError, match=message):
        Tiling(tile, overlap)
