"""Thresholds from good images, and the scale on which they are 0.5."""

import json

import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.evaluation import calibrate, f1_at, read_calibration
from imvad_jax.evaluation.calibration import NAME, Calibration, Scale


def made(quantile=0.95, count=40, **maps):
    scores = np.random.default_rng(0).gamma(4, size=count).astype(np.float32)
    return scores, calibrate(scores, [f"{i}.png" for i in range(count)], quantile, **maps)


def test_threshold_is_one_half_and_a_usual_good_image_one_quarter():
    scale = Scale(threshold=12.0, typical=10.0)
    assert scale.normalize(12.0) == 0.5 and scale.normalize(10.0) == 0.25
    assert scale.normalize(14.0) == 0.75
    assert scale.normalize(12.0 + 9 * 2.0) == pytest.approx(0.95)


@pytest.mark.parametrize("scale", [Scale(12, 10), Scale(-1e-3, -2e-3), Scale(5, 5), Scale(0, 0)])
def test_order_is_kept_and_ends_are_not_reached(scale):
    values = scale.threshold + scale.unit * np.array([-1e4, -9, -1, -1e-3, 0, 1e-3, 1, 9, 1e4])
    found = scale.normalize(values)
    assert (np.diff(found) > 0).all() and found[0] > 0 and found[-1] < 1
    assert found[4] == 0.5


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.95, 1.0])
def test_as_many_good_images_are_flagged_as_the_quantile_says(quantile):
    scores, found = made(quantile)
    assert found.flagged == max(round((1 - quantile) * 40), 1)
    assert found.image.typical == pytest.approx(np.median(scores))
    assert found.expected_rate == pytest.approx(max(1 - quantile, 1 / 41))
    assert f"flags {found.flagged} of them" in found.describe()


@pytest.mark.parametrize("count", [16, 100])
def test_the_share_of_flagged_good_images_lies_where_it_is_said(count):
    rng, inside = np.random.default_rng(0), []
    for _ in range(500):
        found = calibrate(rng.random(count), [""] * count, 0.95)  # its share is 1 - threshold
        low, high = found.rate_interval
        inside.append(low <= 1 - found.image.threshold <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert f"({100 * low:.1g} to {100 * high:.2g} %" in found.describe()


def test_pixel_threshold_flags_as_many_maps():
    maps = np.random.default_rng(1).gamma(2, size=(40, 6, 6))
    maxima, medians = maps.max((1, 2)), np.median(maps, (1, 2))
    found = made(0.9, map_maxima=maxima, map_medians=medians)[1]
    assert sum((m >= found.pixel.threshold).any() for m in maps) == 4
    assert found.pixel.typical == pytest.approx(np.median(medians))
    assert made()[1].pixel is None


def test_one_image_and_equal_scores_give_a_threshold_at_that_score():
    found = calibrate(np.full(3, 7.0), list("abc"), 0.99)
    assert found.image.threshold == 7 and found.flagged == 3
    assert found.image.normalize(6.9) < 0.5 < found.image.normalize(7.1)
    assert calibrate(np.ones(1), ["a"], 0.95).flagged == 1


@pytest.mark.parametrize("maps", [{}, {"map_maxima": np.arange(4.0), "map_medians": np.ones(4)}])
def test_written_and_read_again(tmp_path, maps):
    found = made(count=4, **maps)[1]
    (tmp_path / NAME).write_text(json.dumps(found.as_dict()))
    assert read_calibration(tmp_path) == found
    assert read_calibration(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"image": null}', '{"image": {"threshold": 1}}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=NAME):
        read_calibration(tmp_path)


@pytest.mark.parametrize("quantile", [0.4, 1.1, float("nan")])
def test_bad_quantiles(quantile):
    with pytest.raises(UserError, match="threshold_quantile"):
        made(quantile)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="1 of 2"):
        calibrate(np.array([1.0, np.nan]), ["a", "b"], 0.95)


def test_the_scale_serves_jax_arrays():
    jnp = pytest.importorskip("jax.numpy")
    values = np.linspace(-5, 40, 7, dtype=np.float32)
    np.testing.assert_allclose(
        Scale(12, 10).normalize(jnp.asarray(values)), Scale(12, 10).normalize(values), rtol=1e-6
    )


def test_f1_at_a_threshold():
    assert f1_at([4, 3, 2, 1], [1, 0, 1, 0], 2) == pytest.approx(2 * 2 / (2 + 3))
    assert f1_at([4, 3], [1, 0], 9) == 0
    assert np.isnan(f1_at([4, 3], [0, 0], 3))


def test_from_dict_ignores_what_is_added_for_readers():
    found = made()[1]
    assert {"count", "flagged"} <= set(found.as_dict())
    assert Calibration.from_dict(found.as_dict()) == found
