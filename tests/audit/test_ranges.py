"""New images against the range of the good ones."""

import numpy as np
import pytest

from imvad_jax.audit import Ranges
from imvad_jax.data.batches import ArrayImages


def drawn(count: int, seed: int, level: float = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = rng.normal(level, 10, (count, 16, 16, 3)) + rng.normal(0, 4, (count, 1, 1, 1))
    return np.clip(images, 0, 255).astype(np.uint8)


def rows(images: np.ndarray) -> list[dict]:
    from imvad_jax.audit.statistics import numbers_of

    return numbers_of(images)


def test_pictures_under_another_light_are_told():
    ranges = Ranges.of_images(ArrayImages(drawn(60, 0)))
    found = ranges.compare(rows(drawn(10, 1, 80)))
    assert (found.outside, found.count) == (10, 10)
    assert found.median < found.lowest < found.highest
    assert "10 of 10 new images lie outside" in str(found) and found.name in str(found)


def test_a_single_dark_picture_is_told_and_a_single_usual_one_is_not():
    ranges = Ranges.of_images(ArrayImages(drawn(60, 0)))
    assert ranges.compare(rows(drawn(1, 2, 20))).outside == 1
    assert ranges.compare(rows(drawn(1, 3))) is None
    assert ranges.compare([]) is None


def test_alike_pictures_are_seldom_told():
    images = drawn(90, 4)
    values = rows(images)
    rng, told = np.random.default_rng(0), 0
    for _ in range(200):
        order = rng.permutation(90)
        ranges = Ranges.of_numbers({
            name: np.array([values[n][name] for n in order[:60]]) for name in values[0]
        })  # fmt: skip
        told += ranges.compare([values[n] for n in order[60:]]) is not None
    assert told <= 6


def test_it_is_stored_and_looked_at():
    ranges = Ranges.of_images(ArrayImages(drawn(8, 0)))
    assert Ranges.from_dict(ranges.as_dict()) == ranges
    stored = ranges.as_dict()
    for wrong in (
        None, {}, {"images": 3, "numbers": {"mean grey": [1, 2]}},
        {"images": 3, "numbers": {"mean grey": [3, 2, 1]}},
        {"images": 0, "numbers": stored["numbers"]},
        {"images": 3, "numbers": {"mean grey": [1, 2, "x"]}},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            Ranges.from_dict(wrong)


def test_of_too_few_images_there_is_none():
    assert Ranges.of_images(ArrayImages(drawn(2, 0))) is None
