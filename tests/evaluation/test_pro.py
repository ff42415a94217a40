import itertools

import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.evaluation import pixel_metrics
from imvad_jax.evaluation.pro import region_weights
from tests.evaluation.drawn import ragged


def regions_of(mask):
    """8-connected components by flood fill, as lists of pixels: independent of scipy."""
    todo, found = set(zip(*np.nonzero(mask))), []
    while todo:
        queue, region = [todo.pop()], []
        while queue:
            i, j = queue.pop()
            region.append((i, j))
            near = {(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)} & todo
            todo -= near
            queue += near
        found.append(region)
    return found


def area(curve, limit):
    """Area under straight lines between (x, y) points of ascending x, from 0 to `limit`."""
    total = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 >= limit or x1 == x0:
            continue
        if x1 > limit:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        total += (x1 - x0) * (y0 + y1) / 2
    return total / limit


def brute_force(maps, masks, limit=0.3):
    """The exact definition: at every distinct score, the mean overlap of the regions."""
    good = np.concatenate([m[~k] for m, k in zip(maps, masks)])
    regions = [[m[p] for p in r] for m, k in zip(maps, masks) for r in regions_of(k)]
    curve = [(0.0, 0.0)]
    for t in sorted({v for m in maps for v in m.ravel()}, reverse=True):
        overlap = np.mean([np.mean([v >= t for v in region]) for region in regions])
        curve.append((np.mean(good >= t), overlap))
    return area(curve + [(1.0, 1.0)], limit)


def benchmark(maps, masks, limit=0.3, num_thresholds=100):
    """The benchmark's definition, transcribed from its description (and not from its code)."""
    good = sorted(v for m, k in zip(maps, masks) for v in m[~k])
    regions = [np.array([m[p] for p in r]) for m, k in zip(maps, masks) for r in regions_of(k)]
    curve = [(1.0, 1.0)]
    for p in np.trunc(np.linspace(0, len(good) - 1, num_thresholds)).astype(int):
        overlap = np.mean([np.mean(region > good[p]) for region in regions])
        curve.append((1 - (p + 1) / len(good), overlap))
    return area(curve[::-1], limit)


def pro(maps, masks, **options):
    return pixel_metrics(maps, masks, **options)["pixel_pro"]


@pytest.mark.parametrize("levels", [2, 3, 6, 40, 0])
@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(levels, seed):
    maps, masks = ragged(seed, levels=levels)
    assert pro(maps, masks) == pytest.approx(brute_force(maps, masks), abs=1e-9)


def test_images_of_different_sizes():
    maps, masks = ragged(5, shape=(3, 24, 24))
    maps = [maps[0, :20], maps[1, :, :13], maps[2]]
    masks = [masks[0, :20], masks[1, :, :13], masks[2]]
    assert pro(maps, masks) == pytest.approx(brute_force(maps, masks), abs=1e-9)


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("levels", [3, 0])
def test_other_limits(limit, levels):
    maps, masks = ragged(7, levels=levels)
    expected = brute_force(maps, masks, limit)
    assert pro(maps, masks, pro_limit=limit) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("limit", [0.3, 0.1])
@pytest.mark.parametrize("levels", [2, 6, 0])
@pytest.mark.parametrize("seed", range(4))
def test_benchmark_variant_equals_its_description(limit, levels, seed):
    maps, masks = ragged(seed, levels=levels)
    found = pixel_metrics(maps, masks, pro_limit=limit, benchmark_pro=True)
    assert found["pixel_pro_100"] == pytest.approx(benchmark(maps, masks, limit), abs=1e-9)
    assert found["pixel_pro"] == pro(maps, masks, pro_limit=limit)


def test_benchmark_variant_with_fewer_good_pixels_than_thresholds():
    maps, masks = ragged(0, shape=(2, 16, 16), levels=0)
    maps, masks = maps[:1, :7, :9], masks[:1, :7, :9]
    assert 0 < (~masks).sum() < 100
    found = pixel_metrics(maps, masks, benchmark_pro=True)["pixel_pro_100"]
    assert found == pytest.approx(benchmark(maps, masks), abs=1e-9)


def test_benchmark_variant_is_lower_and_converges():
    maps, masks = ragged(1, shape=(6, 64, 64), levels=0)
    maps = ndimage.gaussian_filter(maps + 2 * masks, (0, 1.0, 1.0))
    found = pixel_metrics(maps, masks, benchmark_pro=True)
    assert 0.0005 < found["pixel_pro"] - found["pixel_pro_100"] < 0.03


def test_by_hand():
    # Regions {9.5} and {7.5, 0.5}, and eleven good pixels, two of which (8, 9) lie above 7.5: the
    # overlap is 1/2 up to a rate of 2/11, and 3/4 from there to beyond the limit.
    maps = np.array([[9.5, 0, 1, 2, 3, 4, 5], [6.5, 6, 7, 8, 9, 7.5, 0.5]])
    masks = np.isin(maps, [9.5, 7.5, 0.5])
    expected = (0.5 * 2 / 11 + 0.75 * (0.3 - 2 / 11)) / 0.3
    assert pro([maps], [masks]) == pytest.approx(expected, abs=1e-12)


def test_regions_touching_by_a_corner_are_one():
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]], bool)
    weights, regions = region_weights(mask)
    assert regions == 3
    np.testing.assert_array_equal(weights, [0.5, 0.5, 1, 1])


def test_regions_weigh_the_same_whatever_their_size():
    mask = np.zeros((20, 20), bool)
    mask[:8, :8] = mask[15, 15] = True
    maps = np.where(mask, 0.0, 1.0)
    maps[15, 15] = 2.0  # only the single pixel is found
    assert pro(maps[None], mask[None]) == pytest.approx(0.5, abs=1e-12)


def test_regions_do_not_join_across_images():
    mask = np.zeros((2, 4, 4), bool)
    mask[0, 3], mask[1, 0, 0] = True, True  # adjacent only if images were stacked
    maps = np.zeros((2, 4, 4))
    maps[1, 0, 0] = 1
    expected = brute_force(maps, mask)
    assert pro(maps, mask) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.5
