"""Synthetic anomalies: what is laid where, and how often."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops import anomaly

SIZE, COUNT = 32, 200


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def pictures_of(count, seed=0):
    """Images `[count, 32, 32, 3]` without black, so that what a rotation brings in is seen."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, (count, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def many():
    images = pictures_of(COUNT)
    found = jax.jit(anomaly.synthesize)(keys(COUNT), images)
    return images, anomaly.SyntheticAnomaly(*map(np.asarray, found))


def test_blend_is_equation_2():
    rng = np.random.default_rng(0)
    image, texture = rng.uniform(0, 1, (2, 5, 6, 3))
    mask, beta = rng.integers(0, 2, (5, 6)), 0.3
    m = mask[..., None]
    expected = (1 - m) * image + m * ((1 - beta) * texture + beta * image)
    np.testing.assert_allclose(anomaly.blend(image, texture, mask > 0, beta), expected, atol=1e-6)


def test_outside_of_the_mask_nothing_changes(many):
    _, found = many
    assert found.mask.shape == (COUNT, SIZE, SIZE) and found.mask.dtype == bool
    np.testing.assert_array_equal(found.augmented[~found.mask], found.original[~found.mask])
    assert np.abs(found.augmented - found.original)[found.mask].mean() > 0.1
    assert found.augmented.min() >= 0 and found.augmented.max() <= 1


def test_inside_of_the_mask_one_weight_holds_for_the_whole_image(many):
    _, found = many
    weights = []
    for original, augmented, mask, texture in zip(*found):
        span = (original - texture)[mask]
        usable = np.abs(span) > 0.1
        if usable.sum() > 20:
            weight = (augmented - texture)[mask][usable] / span[usable]
            assert np.ptp(weight) < 1e-4
            weights.append(weight.mean())
    assert len(weights) > 50 and min(weights) >= 0 and max(weights) <= 0.8
    np.testing.assert_allclose(np.mean(weights), 0.4, atol=4 * 0.8 / np.sqrt(12 * len(weights)))


def test_half_of_the_images_get_none_and_three_in_ten_are_turned(many):
    images, found = many
    share = found.mask.any((1, 2)).mean()
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(COUNT)
    turned = np.abs(found.original - images).max((1, 2, 3)) > 1e-3
    assert abs(turned.mean() - 0.3) < 4 * np.sqrt(0.21 / COUNT)
    np.testing.assert_array_equal(found.original[~turned], images[~turned])
    black = (found.original[turned][:, 0, 0] < 0.2).all(-1)  # the corner comes from outside
    assert black.mean() > 0.8


def test_turned_images_are_three_in_ten_by_up_to_a_right_angle():
    image = pictures_of(1)[0]
    turn = jax.jit(anomaly.turn_some)
    np.testing.assert_array_equal(turn(np.array([0.301, 1.0]), image), image)
    for number, quarters in ((1.0, 1), (0.0, -1)):
        found = turn(np.array([0.299, number]), image)
        np.testing.assert_allclose(found, np.rot90(image, quarters), atol=1e-5)


def test_shares_of_anomalies_and_of_the_image_in_them(monkeypatch):
    """White on black: an anomaly shows one minus the share of the image, and nothing else does."""
    count, size = 2000, 16

    def white(keys, wanted, size, pictures, sharpest):
        return jnp.ones((len(keys), size, size, 3))

    monkeypatch.setattr(anomaly, "draw_textures", white)

    def largest(**options):
        black = jnp.zeros((count, size, size, 3))
        synthesize = jax.jit(functools.partial(anomaly.synthesize, **options))
        return np.asarray(synthesize(keys(count), black).augmented).max((1, 2, 3))

    all_of_them, some = largest(anomalous=1.0), largest()
    # Masks may be empty, by the same keys in both.
    drawn, kept = (all_of_them > 0).sum(), (some > 0).sum()
    assert drawn > count / 3
    assert abs(kept / drawn - 0.5) < 4 * 0.5 / np.sqrt(drawn)
    share = 1 - all_of_them[all_of_them > 0]
    assert 0 <= share.min() < 0.01 and 0.79 < share.max() < 0.8
    assert abs(share.mean() - 0.4) < 4 * 0.8 / np.sqrt(12 * drawn)


def test_an_image_depends_on_its_own_key_alone(many):
    images, found = many
    alone = jax.jit(anomaly.synthesize)(keys(COUNT)[5:8], images[5:8])
    for one, all_of_them in zip(alone, found):
        np.testing.assert_allclose(one, all_of_them[5:8], atol=1e-5)


def test_given_pictures_are_the_textures():
    pictures = np.zeros((2, SIZE, SIZE, 3), np.uint8)  # black: hardly an operation changes them
    found = jax.jit(anomaly.synthesize)(keys(40), pictures_of(40), pictures)
    one_color = np.ptp(np.asarray(found.texture), axis=(1, 2)).max(-1) < 1e-6
    assert one_color.mean() > 0.7  # all but the turned ones of which one was brightened before


def test_only_textures_that_are_seen_are_drawn(many):
    images, found = many
    synthesize = jax.jit(anomaly.synthesize, static_argnames="anomalous")
    every = np.asarray(synthesize(keys(COUNT), images, anomalous=1.0).texture)
    drawn = found.texture.any((1, 2, 3))
    assert drawn[found.mask.any((1, 2))].all()
    assert abs(drawn.mean() - 0.5) < 4 * 0.5 / np.sqrt(COUNT)
    np.testing.assert_allclose(found.texture[drawn], every[drawn], atol=1e-5)


def test_own_textures_are_the_image_rearranged(many):
    images, _ = many
    found = jax.jit(anomaly.synthesize, static_argnames="own")(keys(20), images[:20], own=1.0)
    for original, texture in zip(np.asarray(found.original), np.asarray(found.texture)):
        # The same values in other places, up to one factor and one offset.
        before, after = np.sort(original, axis=None), np.sort(texture, axis=None)
        inside = (after > 0) & (after < 1)
        factor, offset = np.polyfit(before[inside], after[inside], 1)
        np.testing.assert_allclose(after[inside], factor * before[inside] + offset, atol=1e-4)
        assert 0.5 <= factor <= 1.5 and abs(offset) <= 0.25 + 1e-4
        assert np.abs(texture - original).mean() > 0.1


def test_own_textures_lie_in_large_shapes_of_which_the_visible_part_is_marked(many):
    images, drawn = many
    found = jax.jit(anomaly.synthesize, static_argnames="own")(keys(COUNT), images, own=1.0)
    mask = np.asarray(found.mask)
    change = np.abs(np.asarray(found.augmented) - np.asarray(found.original)).max(-1)
    np.testing.assert_array_equal(change > 8 / 255, mask)

    def border_by_area(shapes):
        borders = (shapes[:, 1:] != shapes[:, :-1]).sum() + np.diff(shapes, axis=2).sum()
        return borders / shapes.sum()

    assert (change > 0).mean() > 2 * drawn.mask.mean()
    assert border_by_area(change > 0) < border_by_area(drawn.mask) / 2


def test_own_textures_come_as_often_as_asked(many):
    images, drawn = many
    found = jax.jit(anomaly.synthesize, static_argnames="own")(keys(COUNT), images, own=0.3)
    own = np.abs(np.asarray(found.texture) - drawn.texture).max((1, 2, 3)) > 1e-3
    assert abs(own.mean() - 0.3) < 4 * np.sqrt(0.21 / COUNT)


def test_show_gives_pictures_with_an_anomaly():
    show = jax.jit(anomaly.show)
    shown = [show(key, pictures_of(1)[0]) for key in keys(3)]
    assert set(shown[0]) == {"original", "augmented", "mask", "texture"}
    for pictures in shown:
        assert all(picture.shape == (SIZE, SIZE, 3) for picture in pictures.values())
    assert sum(float(pictures["mask"].max()) for pictures in shown) >= 2


@pytest.fixture(scope="module")
def drawn_with():
    """`synthesize` of the images of `many`, by options."""
    synthesize = jax.jit(
        anomaly.synthesize, static_argnames=("own", "anomalous", "shift", "matched")
    )

    def drawn(images, **options):
        found = synthesize(keys(len(images)), images, **options)
        return anomaly.SyntheticAnomaly(*map(np.asarray, found))

    return drawn


def test_a_shift_of_brightness_is_the_same_in_input_and_target(many, drawn_with):
    images, _ = many
    images = 0.3 + 0.4 * images  # far enough from 0 and 1 that nothing is clipped
    before, after = drawn_with(images), drawn_with(images, shift=0.2)
    np.testing.assert_array_equal(after.mask, before.mask)
    outside = ~after.mask
    np.testing.assert_array_equal(after.augmented[outside], after.original[outside])
    turned = np.abs(before.original - images).max((1, 2, 3)) > 1e-3
    fits = np.array([
        np.polyfit(one.ravel(), other.ravel(), 1)
        for one, other in zip(before.original[~turned], after.original[~turned], strict=True)
    ])  # fmt: skip
    assert len(fits) > COUNT / 2
    shifted = fits[:, :1, None] * before.original[~turned][..., 0] + fits[:, 1:, None]
    np.testing.assert_allclose(after.original[~turned][..., 0], shifted, atol=1e-4)
    for found, middle, largest in ((fits[:, 0], 1, 0.2), (fits[:, 1], 0, 0.1)):
        assert largest * 0.85 < np.abs(found - middle).max() < largest + 1e-4
        assert abs(found.mean() - middle) < 4 * 2 * largest / np.sqrt(12 * len(fits))


def test_without_a_shift_nothing_is_drawn_otherwise(many, drawn_with):
    images, plain = many
    jax.tree.map(np.testing.assert_array_equal, drawn_with(images, shift=0.0, matched=0.0), plain)


def test_matched_textures_have_the_mean_of_what_they_cover(many, drawn_with):
    images, _ = many
    images = 0.4 + 0.2 * images  # in the middle, so that little of a texture is clipped
    free, found = drawn_with(images), drawn_with(images, matched=1.0)
    away = []
    for one in (free, found):
        change = [(a - o)[m].mean() for o, a, m in zip(one.original, one.augmented, one.mask)
                  if m.sum() > 20]  # fmt: skip
        away.append(np.abs(change))
    assert len(away[1]) > 50
    assert np.median(away[1]) < np.median(away[0]) / 4
    assert np.mean(away[1]) < np.mean(away[0]) / 4
    change = np.abs(found.augmented - found.original).max(-1)
    np.testing.assert_array_equal(change > 8 / 255, found.mask)  # what is not seen is not marked


def test_matching_moves_all_values_by_one_offset():
    rng = np.random.default_rng(0)
    image, texture = rng.uniform(0.5, 0.7, (2, 6, 5, 3)).astype(np.float32)
    mask = rng.uniform(size=(6, 5)) < 0.5
    found = np.asarray(anomaly.match_brightness(texture - 0.2, image, mask))
    np.testing.assert_allclose(found[mask].mean(), image[mask].mean(), atol=1e-6)
    assert np.ptp(found - texture) < 1e-6
    nothing = anomaly.match_brightness(texture, image, np.zeros_like(mask))
    np.testing.assert_array_equal(nothing, texture)


def test_matched_textures_come_as_often_as_asked(many, drawn_with):
    images, plain = many
    found = drawn_with(images, matched=0.3)
    covered = plain.mask.any((1, 2))
    moved = np.abs(found.texture - plain.texture).max((1, 2, 3))[covered] > 1e-4
    assert abs(moved.mean() - 0.3) < 4 * np.sqrt(0.21 / covered.sum())
