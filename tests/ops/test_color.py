"""Colour against colorsys, Pillow and torchvision's definition in numpy."""

import colorsys
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from imvad_jax.ops import color


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    drawn = rng.uniform(0, 1, (12, 10, 3)).astype(np.float32)
    drawn[0] = rng.choice([0, 0.5, 1], (10, 3))  # greys, pure colours, black, ties
    drawn[1, :3] = [[0, 0, 0], [1, 1, 1], [0.3, 0.3, 0.3]]
    return drawn


def in_colorsys(function, image):
    flat = [function(*map(float, pixel)) for pixel in image.reshape(-1, 3)]
    return np.array(flat).reshape(image.shape)


def test_hsv_is_that_of_colorsys_and_back(image):
    hsv = color.rgb_to_hsv(image)
    expected = in_colorsys(colorsys.rgb_to_hsv, image)
    apart = np.abs(hsv - expected)
    apart[..., 0] = np.minimum(apart[..., 0], 1 - apart[..., 0])  # hue 0 is hue 1
    assert apart.max() < 1e-5
    np.testing.assert_allclose(color.hsv_to_rgb(hsv), image, atol=1e-6)


def test_hsv_to_rgb_is_that_of_colorsys(image):
    expected = in_colorsys(colorsys.hsv_to_rgb, image)
    np.testing.assert_allclose(color.hsv_to_rgb(image), expected, atol=1e-5)
    turned = image - np.array([3, 0, 0], np.float32)
    np.testing.assert_allclose(color.hsv_to_rgb(turned), expected, atol=1e-5)


def brightness(image, factor):
    """Of ColorJitter, which the orders of `jitter` are compared with."""
    return jnp.clip(image * factor, 0, 1)


def contrast(image, factor):
    """The same of the contrast: towards the mean grey."""
    return jnp.clip(factor * image + (1 - factor) * color.to_gray(image).mean(), 0, 1)


def in_pillow(image, change):
    shown = Image.fromarray(np.round(image * 255).astype(np.uint8))
    return np.asarray(change(shown), np.float32) / 255


def test_gray_is_that_of_pillow(image):
    gray = color.to_gray(image)
    assert gray.shape == (12, 10, 1)
    expected = in_pillow(image, lambda shown: shown.convert("L"))
    np.testing.assert_allclose(gray[..., 0], expected, atol=1.1 / 255)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    "ours, pillows",
    [
        (brightness, ImageEnhance.Brightness),
        (contrast, ImageEnhance.Contrast),
        (color.adjust_saturation, ImageEnhance.Color),
    ],
)
def test_adjustments_are_those_of_pillow(image, ours, pillows, factor):
    expected = in_pillow(image, lambda shown: pillows(shown).enhance(factor))
    found = ours(image, factor)
    np.testing.assert_allclose(found, expected, atol=2.6 / 255)  # Pillow rounds three times
    assert found.min() >= 0 and found.max() <= 1


def test_hue_turns_and_keeps_saturation_and_value(image):
    for shift in (-0.5, -0.1, 0.3):
        before = in_colorsys(colorsys.rgb_to_hsv, image)
        before[..., 0] = (before[..., 0] + shift) % 1
        expected = in_colorsys(colorsys.hsv_to_rgb, before)
        np.testing.assert_allclose(color.adjust_hue(image, shift), expected, atol=1e-5)


def test_no_jitter_is_the_image(image):
    found = color.jitter(jax.random.key(0), image, brightness=0, contrast=0, saturation=0, hue=0)
    np.testing.assert_allclose(found, image, atol=1e-5)


def test_jitter_is_a_function_of_the_key_and_stays_in_range(image):
    jitter = jax.jit(
        jax.vmap(
            lambda key: color.jitter(
                key, image, brightness=0.9, contrast=0.9, saturation=0.9, hue=0.5
            )
        )
    )
    keys = jax.random.split(jax.random.key(1), 32)
    found = jitter(keys)
    np.testing.assert_array_equal(found, jitter(keys))
    assert found.min() >= 0 and found.max() <= 1
    assert len({np.asarray(one).tobytes() for one in found}) == 32


def test_jitter_of_a_region_is_that_of_an_image_of_its_own(image):
    where = np.zeros(image.shape[:2], bool)
    where[3:9, 2:6] = True
    amounts = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2}
    for seed in range(4):
        key = jax.random.key(seed)
        found = color.jitter(key, image, **amounts, where=where)[3:9, 2:6]
        np.testing.assert_allclose(found, color.jitter(key, image[3:9, 2:6], **amounts), atol=1e-5)


def test_brightness_factors_are_uniform():
    flat = np.full((2, 2, 3), 0.5, np.float32)
    keys = jax.random.split(jax.random.key(2), 2000)
    jittered = jax.jit(
        jax.vmap(
            lambda key: color.jitter(key, flat, brightness=0.4, contrast=0, saturation=0, hue=0)
        )
    )(keys)
    found = jittered[:, 0, 0, 0] / 0.5
    assert 0.6 <= found.min() < 0.61 and 1.39 < found.max() <= 1.4 + 1e-5
    assert abs(found.mean() - 1) < 0.02 and abs(found.std() - 0.8 / 12**0.5) < 0.01


def test_jitter_takes_all_24_orders_alike(image):
    """The same factors applied in each order: every result is one of these, and all occur."""
    keys = jax.random.split(jax.random.key(3), 240)
    found = np.asarray(
        jax.jit(
            jax.vmap(
                lambda k: color.jitter(
                    k, image, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.3
                )
            )
        )(keys)
    )
    steps = {
        "b": lambda x, f, s: brightness(x, f[0]),
        "c": lambda x, f, s: contrast(x, f[1]),
        "s": lambda x, f, s: color.adjust_saturation(x, f[2]),
        "h": lambda x, f, s: color.adjust_hue(x, s),
    }

    def candidates(key):
        drawn = jax.random.uniform(key, (8,))
        factors, shift = 0.5 + drawn[:3], 0.6 * drawn[3] - 0.3
        orders = []
        for order in itertools.permutations("bcsh"):
            x = image
            for name in order:
                x = steps[name](x, factors, shift)
            orders.append(x)
        return jax.numpy.stack(orders)

    possible = np.asarray(jax.jit(jax.vmap(candidates))(keys))
    apart = np.abs(possible - found[:, None]).max((2, 3, 4))
    assert apart.min(1).max() < 1e-4
    counts = np.bincount(apart.argmin(1), minlength=24)
    assert counts.min() >= 2 and counts.max() <= 25
