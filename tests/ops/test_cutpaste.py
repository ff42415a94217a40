"""CutPaste: where it pastes, what it pastes, and that it touches nothing else."""

import functools

import jax
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from imvad_jax.ops.cutpaste import cutpaste, scar

COUNT, SIZE = 300, 64


@functools.lru_cache
def compiled(augment, **settings):
    augment = functools.partial(augment, **settings)
    return jax.jit(jax.vmap(augment, in_axes=(0, None)))


@functools.lru_cache
def drawn(augment, **settings):
    """Many augmentations of one image without equal pixels: the image, results, masks."""
    image = np.random.default_rng(0).uniform(0.2, 0.8, (SIZE, SIZE, 3)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), COUNT)
    found = compiled(augment, **settings)(keys, image)
    return image, *(np.asarray(part) for part in found)


def box(mask):
    """First row, first column, height, width of the smallest rectangle around a mask."""
    rows, columns = ndimage.find_objects(mask.astype(int))[0]
    return rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start


@pytest.mark.parametrize("augment", [cutpaste, scar])
def test_outside_the_mask_the_image_is_bit_identical(augment):
    image, found, masks = drawn(augment)
    assert masks.dtype == bool and masks.shape == (COUNT, SIZE, SIZE)
    assert masks.any((1, 2)).all() and not masks.all((1, 2)).any()
    for one, mask in zip(found, masks):
        np.testing.assert_array_equal(one[~mask], image[~mask])
    assert found.min() >= 0 and found.max() <= 1 and found.dtype == np.float32


@pytest.mark.parametrize("augment", [cutpaste, scar])
def test_the_key_alone_decides(augment):
    image, found, _ = drawn(augment)
    keys = jax.random.split(jax.random.key(0), COUNT)
    np.testing.assert_array_equal(compiled(augment)(keys[::-1], image)[0], found[::-1])
    assert len({one.tobytes() for one in found}) == COUNT


def test_rectangles_have_the_papers_sizes_and_lie_anywhere():
    _, _, masks = drawn(cutpaste)
    boxes = np.array([box(mask) for mask in masks])
    np.testing.assert_array_equal(masks.sum((1, 2)), boxes[:, 2] * boxes[:, 3])  # filled, inside
    share = masks.mean((1, 2))
    assert 0.017 < share.min() < 0.03 and 0.14 < share.max() < 0.157
    assert abs(share.mean() - 0.085) < 0.007  # uniform
    ratio = np.log(boxes[:, 3] / boxes[:, 2])
    assert 1.0 < ratio.max() < 1.35 and -1.35 < ratio.min() < -1.0
    assert abs(ratio.mean()) < 0.12 and abs(ratio.std() - 1.2 / 3**0.5) < 0.08
    for axis in (0, 1):
        free = SIZE - boxes[:, 2 + axis]
        place = boxes[:, axis] / free
        assert place.min() == 0 and place.max() == 1 and abs(place.mean() - 0.5) < 0.06


def test_without_jitter_the_rectangle_is_a_piece_of_the_image():
    image, found, masks = drawn(cutpaste, jitter=0.0)
    starts = []
    for one, mask in zip(found[:40], masks[:40]):
        row, column, height, width = box(mask)
        piece = one[row : row + height, column : column + width]
        windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (2, 2))
        apart = np.abs(windows - piece[:2, :2, 0]).max((2, 3))  # its corner names the source
        r, c = np.unravel_index(apart.argmin(), apart.shape)
        np.testing.assert_allclose(piece, image[r : r + height, c : c + width], atol=1e-5)
        starts.append((r - row, c - column))
    assert np.std(starts, axis=0).min() > 5  # source and target are independent


def test_jitter_changes_the_rectangle_a_little():
    _, plain, masks = drawn(cutpaste, jitter=0.0)
    _, found, _ = drawn(cutpaste)
    change = np.abs(found - plain).sum((1, 2, 3)) / (3 * masks.sum((1, 2)))
    assert change.min() > 0.003 and 0.02 < change.mean() < 0.1


def test_scars_have_the_papers_sizes_scaled_to_the_image():
    _, _, masks = drawn(scar)
    # The blended edge adds up to a pixel to either side; 64 pixels are a quarter of 256.
    smallest, largest = 0.5 * 2, (4 + 2) * (6 + 2)
    areas = masks.sum((1, 2))
    assert areas.min() >= smallest and areas.max() <= largest
    _, _, upright = drawn(scar, rotation=0.0)
    boxes = np.array([box(mask) for mask in upright])
    assert set(boxes[:, 2]) <= set(range(2, 8)) and boxes[:, 2].max() == 7
    assert set(boxes[:, 3]) <= set(range(1, 6)) and boxes[:, 3].max() == 5
    assert boxes[:, 2].mean() > boxes[:, 3].mean() + 1


def test_hard_scars_show_pixels_of_the_image_within_what_blended_ones_touch():
    image, _, touched = drawn(scar, jitter=0.0)
    _, found, masks = drawn(scar, jitter=0.0, hard=True)
    assert masks.any((1, 2)).all() and (masks <= touched).all()
    assert masks.sum() < 0.8 * touched.sum()
    pixels = cKDTree(image.reshape(-1, 3))
    for one, mask in zip(found[:40], masks[:40]):
        np.testing.assert_array_equal(one[~mask], image[~mask])
        assert pixels.query(one[mask])[0].max() < 1e-5  # none is mixed
    _, _, upright = drawn(scar, jitter=0.0, hard=True, rotation=0.0)
    boxes = np.array([box(mask) for mask in upright])
    np.testing.assert_array_equal(upright.sum((1, 2)), boxes[:, 2] * boxes[:, 3])
    assert boxes[:, 2].max() <= 7 and boxes[:, 3].max() <= 5


@functools.lru_cache
def long_scars(rotation):
    """Large masks, whose direction can be measured: 5 x 40 pixels."""
    return drawn(scar, width=(20.0, 20.0), length=(160.0, 160.0), rotation=rotation)


def test_scars_turn_within_45_degrees_and_stay_inside():
    _, _, masks = long_scars(45.0)
    angles = []
    for mask in masks:
        points = np.argwhere(mask)
        _, vectors = np.linalg.eigh(np.cov(points.T))
        angles.append(np.rad2deg(np.arctan(vectors[1, 1] / vectors[0, 1])))
        assert abs(mask.sum() - 6 * 41) < 50  # nothing is cut off
    assert -47 < min(angles) < -40 and 40 < max(angles) < 47
    assert abs(np.mean(angles)) < 5


def test_a_turned_scar_shows_the_image_turned():
    """A ramp along the scar stays a ramp along it; across it nothing changes."""
    ramp = np.tile(np.linspace(0.1, 0.9, SIZE, dtype=np.float32)[:, None, None], (1, SIZE, 3))
    settings = {"width": (60.0, 60.0), "length": (160.0, 160.0), "jitter": 0.0}
    found, masks = compiled(scar, **settings)(jax.random.split(jax.random.key(4), 20), ramp)
    for one, mask in zip(np.asarray(found), np.asarray(masks)):
        inner = ndimage.binary_erosion(mask, iterations=2)
        points = np.argwhere(inner)
        design = np.c_[points, np.ones(len(points))]
        slope, *_ = np.linalg.lstsq(design, one[inner][:, 0], rcond=None)
        np.testing.assert_allclose(design @ slope, one[inner][:, 0], atol=1e-4)
        np.testing.assert_allclose(np.hypot(*slope[:2]), 0.8 / (SIZE - 1), rtol=1e-3)
        _, vectors = np.linalg.eigh(np.cov(np.argwhere(mask).T))
        along = vectors[:, 1] * np.sign(vectors[0, 1])
        np.testing.assert_allclose(slope[:2] / np.hypot(*slope[:2]), along, atol=0.06)


@pytest.mark.parametrize("augment", [cutpaste, scar])
def test_small_and_oblong_images(augment):
    image = np.random.default_rng(1).uniform(0, 1, (12, 7, 3)).astype(np.float32)
    found, masks = compiled(augment)(jax.random.split(jax.random.key(1), 50), image)
    assert found.shape == (50, *image.shape) and np.isfinite(found).all()
    assert np.asarray(masks).any((1, 2)).all()
    np.testing.assert_array_equal(
        np.where(masks[..., None], image, found), np.broadcast_to(image, found.shape)
    )
