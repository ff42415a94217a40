"""Drawn textures and the changes made to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops import affine, color, photometric, textures

SIZE = 32
OPERATIONS = [jax.jit(operation) for operation in textures.OPERATIONS]
change = jax.jit(textures.change_texture)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def drawn():
    """60 unchanged textures `[60, 32, 32, 3]`."""
    return np.asarray(
        jax.jit(lambda k: jax.lax.map(lambda one: textures.draw_texture(one, SIZE), k))(keys(60))
    )


def test_textures_are_images_with_structure_and_all_different(drawn):
    assert drawn.shape == (60, SIZE, SIZE, 3) and drawn.min() >= 0 and drawn.max() <= 1
    assert (drawn.std((1, 2)).max(-1) > 0.005).mean() > 0.8  # some have one colour, nearly
    flat = drawn.reshape(60, -1)
    distances = np.abs(flat[:, None] - flat[None]).mean(-1) + np.eye(60)
    assert distances.min() > 0.01


def test_a_third_of_the_textures_is_grey(drawn):
    grey = (np.ptp(drawn, -1) < 1e-5).all((1, 2)).sum()
    assert 20 - 3 * np.sqrt(60 * 2 / 9) < grey < 20 + 3 * np.sqrt(60 * 2 / 9)


@pytest.mark.parametrize("kind", textures.KINDS)
def test_each_kind_keeps_the_range_and_varies(kind):
    rng = np.random.default_rng(0)
    noise, white = rng.uniform(0, 1, (SIZE, SIZE, 3)), rng.uniform(0, 1, (SIZE, SIZE))
    a, b = (
        np.asarray(kind(noise * scale, white, rng.uniform(0, 1, textures.NUMBERS - 3)))
        for scale in (1, 0.5)
    )
    for found in (a, b):
        assert found.shape == (SIZE, SIZE, 3) and found.min() >= 0 and found.max() <= 1
    assert np.abs(a - b).mean() > 0.02


def test_all_kinds_are_drawn_and_a_key_gives_one_texture(drawn, monkeypatch):
    kinds = [lambda n, w, u, i=i: jnp.full_like(n, i / 10) for i in range(len(textures.KINDS))]
    monkeypatch.setattr(textures, "KINDS", kinds)
    draw = jax.jit(lambda k: jax.lax.map(lambda one: textures.draw_texture(one, SIZE), k))
    found, counts = np.unique(np.rint(10 * draw(keys(60))[:, 0, 0, 0]), return_counts=True)
    assert found.tolist() == list(range(len(kinds))) and counts.min() >= 4
    monkeypatch.undo()
    draw = jax.jit(lambda k: jax.lax.map(lambda one: textures.draw_texture(one, SIZE), k))
    np.testing.assert_array_equal(draw(keys(60)[7:9]), drawn[7:9])


def test_three_different_operations_follow_each_other(drawn):
    found, order = [], []
    for key in keys(8, 1):
        uniform = jax.random.uniform(key, (22,))
        chosen = np.argsort(-np.asarray(uniform[:10]))[:3].tolist()
        expected = jnp.asarray(drawn[0])
        for number, k in zip(chosen, uniform[10:].reshape(3, 4)):
            expected = OPERATIONS[number](k, expected)
        found.append(np.asarray(change(key, drawn[0])))
        order.append(chosen)
        # Levels that round the other way move a histogram a little.
        assert np.quantile(np.abs(found[-1] - expected), 0.99) < 0.01
    assert any(chosen != sorted(chosen) for chosen in order)
    assert len({number for chosen in order for number in chosen}) > 6
    assert min(np.abs(one - drawn[0]).mean() for one in found) > 0.01
    assert min(one.min() for one in found) >= 0 and max(one.max() for one in found) <= 1


def test_textures_are_sharpened_up_to_the_factor_asked_for(drawn):
    sharpness = textures.OPERATIONS.index(textures._sharpness)
    milder = jax.jit(lambda key, texture: textures.change_texture(key, texture, 2.0))
    first = last = 0
    for key in keys(60, 2):
        chosen, numbers = textures.draw_changes(key)
        usual, found = change(key, drawn[0]), milder(key, drawn[0])
        if sharpness not in chosen:
            np.testing.assert_array_equal(found, usual)
            last += 1
        elif first < 3:
            expected = jnp.asarray(drawn[0])
            for number, own in zip(chosen.tolist(), numbers):
                own = own * (2 / 3) if number == sharpness else own
                expected = OPERATIONS[number](own, expected)
            assert np.quantile(np.abs(found - expected), 0.99) < 0.01
            assert (np.asarray(found) != np.asarray(usual)).any()
            first += 1
    assert first == 3 and last > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_keeps_the_range(operation, drawn):
    for numbers in np.random.default_rng(0).uniform(0, 1, (3, 4)):
        found = np.asarray(operation(numbers, jnp.asarray(drawn[1])))
        assert found.shape == drawn[1].shape
        assert found.min() >= -1e-6 and found.max() <= 1 + 1e-6


def _hue_and_saturation(image, hue, saturation):
    h, s, v = jnp.moveaxis(color.rgb_to_hsv(image), -1, 0)
    return color.hsv_to_rgb(jnp.stack([h + hue, jnp.clip(s + saturation, 0, 1), v], -1))


# Operation, its numbers, what is done, with which numbers of the official code: those at either end
# of a range, by turns where there are two.
ENDS = (
    ("_gamma", (0, 0.5, 1), photometric.gamma_contrast, np.array([0.5, 1.25, 2])),
    ("_brightness", (0, 1), photometric.multiply_add, 0.8, 30 / 255),
    ("_brightness", (1, 0), photometric.multiply_add, 1.2, -30 / 255),
    ("_sharpness", (0,), photometric.sharpness, 0),
    ("_hue_and_saturation", (0, 1), _hue_and_saturation, -50 / 255, 50 / 255),
    ("_hue_and_saturation", (1, 0), _hue_and_saturation, 50 / 255, -50 / 255),
    ("_solarize", (0, 0.499), photometric.solarize, 32 / 255),
    ("_solarize", (1, 0.499), photometric.solarize, 128 / 255),
    ("_solarize", (1, 0.501), photometric.solarize, 2),  # half of them: nothing
    ("_posterize", (0,), photometric.posterize, 1),
    ("_posterize", (0.126,), photometric.posterize, 2),
    ("_posterize", (0.999,), photometric.posterize, 8),
    ("_autocontrast", (0,), photometric.autocontrast, 0),
    ("_autocontrast", (1,), photometric.autocontrast, 0.2),
    ("_rotate", (0,), affine.rotate, -np.pi / 4),
    ("_rotate", (1,), affine.rotate, np.pi / 4),
)  # fmt: skip


@pytest.mark.parametrize(("name", "numbers", "function", "arguments"), [
    pytest.param(name, numbers, function, arguments, id=f"{name}-{numbers}")
    for name, numbers, function, *arguments in ENDS
])  # fmt: skip
def test_ranges_are_those_of_the_official_code(name, numbers, function, arguments):
    numbers = np.resize(np.float32(numbers), 4)
    image = np.random.default_rng(0).uniform(0, 1, (SIZE, SIZE, 3)).astype(np.float32)
    operation = OPERATIONS[textures.OPERATIONS.index(getattr(textures, name))]
    found, expected = operation(numbers, image), jax.jit(function)(image, *arguments)
    # A level at a threshold may round the other way.
    assert np.quantile(np.abs(found - expected), 0.99) < 1e-5


def test_pictures_are_taken_where_they_are_given():
    pictures = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
    draw = jax.jit(textures.draw_textures, static_argnums=2)
    found = draw(keys(6), jnp.ones(6, bool), SIZE, pictures)
    numbers = []
    for key, one in zip(keys(6), found):
        for_source, for_change = jax.random.split(key)
        numbers.append(int(jax.random.randint(for_source, (), 0, 5)))
        changed = change(for_change, pictures[numbers[-1]] / np.float32(255))
        assert np.quantile(np.abs(one - changed), 0.99) < 0.01
    assert len(set(numbers)) > 2
    some = draw(keys(6), jnp.arange(6) % 2 == 0, SIZE, pictures)
    np.testing.assert_array_equal(some[::2], found[::2])
    assert not some[1::2].any()
