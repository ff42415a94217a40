"""Thresholds from good images, and the scale on which they are 0.5."""

import json
import math

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
    rank = min(math.ceil(41 * quantile), 40)
    assert found.flagged == 40 - rank
    assert found.image.typical == pytest.approx(np.median(scores), rel=2e-3)
    assert found.expected_rate == pytest.approx((41 - rank) / 41) and not found.notes
    assert f"flags {found.flagged} of them" in found.describe()


@pytest.mark.parametrize("count", [16, 100])
def test_the_share_of_flagged_good_images_lies_where_it_is_said(count):
    rng, inside = np.random.default_rng(0), []
    for _ in range(500):
        found = calibrate(rng.random(count), [""] * count, 0.95)  # its share is 1 - threshold
        low, high = found.rate_interval
        inside.append(low <= 1 - found.image.threshold <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert f"90 % interval: {100 * low:.1g} to {100 * high:.2g} %" in found.describe()


def test_pixel_threshold_flags_as_many_maps():
    maps = np.random.default_rng(1).gamma(2, size=(40, 6, 6))
    maxima, medians = maps.max((1, 2)), np.median(maps, (1, 2))
    found = made(0.9, map_maxima=maxima, map_medians=medians)[1]
    assert sum((m > found.pixel.threshold).any() for m in maps) == found.flagged == 3
    assert found.pixel.typical == pytest.approx(np.median(medians))
    assert made()[1].pixel is None


def test_one_image_and_equal_scores_give_a_threshold_at_that_score():
    found = calibrate(np.full(3, 7.0), list("abc"), 0.99)
    assert 7 < found.image.threshold < 7.001 and found.flagged == 0
    assert found.image.normalize(6.9) < 0.5 < found.image.normalize(7.1)
    assert calibrate(np.ones(1), ["a"], 0.95).flagged == 0


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


@pytest.mark.compiles
def test_the_scale_serves_jax_arrays():
    jnp = pytest.importorskip("jax.numpy")
    values = np.linspace(-5, 40, 7, dtype=np.float32)
    np.testing.assert_allclose(
        Scale(12, 10).normalize(jnp.asarray(values)), Scale(12, 10).normalize(values), rtol=1e-6
    )


def test_f1_at_a_threshold():
    assert f1_at([4, 3, 2, 1], [1, 0, 1, 0], 1) == pytest.approx(2 * 2 / (2 + 3))
    assert f1_at([4, 3], [1, 0], 9) == 0
    assert np.isnan(f1_at([4, 3], [0, 0], 3))


def test_from_dict_ignores_what_is_added_for_readers():
    found = made()[1]
    assert {"count", "flagged"} <= set(found.as_dict())
    assert Calibration.from_dict(found.as_dict()) == found


def test_an_image_equal_to_a_good_one_is_good_however_it_is_rounded():
    scores = np.random.default_rng(0).gamma(4, size=7).astype(np.float32)
    for sign in (1, -1):
        found = calibrate(sign * scores, list("abcdefg"), 0.95)
        again = sign * scores * (1 + 4e-6 * np.random.default_rng(1).standard_normal(7))
        assert not (again > found.image.threshold).any()
        assert (found.image.normalize(again) <= 0.5).all()
        assert found.image.threshold - max(sign * scores) < 1e-4


def test_few_images_are_said_to_promise_nothing_in_one_line():
    (line,) = calibrate(np.arange(1.0, 5), list("abcd"), 0.95).notes
    assert line.startswith("no rate of 5 % can be promised from 4 images; 19 would do")
    assert "at most 20 % of new good images" in line and "\n" not in line
    assert calibrate(np.arange(1.0, 20), list("s" * 19), 0.95).notes == ()
    assert "; 99 would do" in calibrate(np.arange(1.0, 20), list("s" * 19), 0.99).notes[0]
    # That the largest score is the threshold is what was asked for.
    assert calibrate(np.arange(1.0, 5), list("abcd"), 1.0).notes == ()
    assert any(
        "does not define a scale" in line for line in calibrate(np.ones(1), ["a"], 0.95).notes
    )


@pytest.mark.parametrize("value", [0.0, 1e-6, 7.0, -500.0])
@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("grain", [None, (0.3, 0.2)])
def test_the_scale_of_equal_scores_does_not_collapse(value, count, grain):
    scores, medians = np.full(count, value), np.full(count, value - 0.1 * abs(value))
    found = calibrate(scores, ["a"] * count, 0.95, scores, medians, copies=count - 1, grain=grain)
    for scale in (found.image, found.pixel):
        assert scale.unit >= 0.999e-3 * (abs(value) or 1)
        assert scale.normalize(value) <= 0.5 and found.flagged == 0
        rounded = scale.normalize(np.float32(value) * np.float32(1 + 1e-6))
        assert 0.2 <= rounded <= 0.5
        ends = scale.normalize(np.array([-1e6, 1e6]))
        assert ends[0] > 0 and ends[1] < 1
    if grain:
        assert found.image.threshold - value >= 0.3
        # What is as different as noise is a usual good part or the threshold, and no defect.
        assert found.image.normalize(value + 0.3) <= 0.5
        assert found.pixel.normalize(value + 0.2) <= 0.5
    if count > 1:
        assert any(f"all {count} images" in line and "copies" in line for line in found.notes)


def test_noise_moves_no_threshold_of_good_images_that_differ():
    plain = made()[1]
    with_grain = made(grain=(1e-3, 1e-3), copies=2)[1]
    assert with_grain.image == plain.image
    assert "2 of the 40 images" in with_grain.notes[0]


def test_another_quantile_of_the_same_scores():
    maps = {"map_maxima": np.arange(40.0) ** 2, "map_medians": np.arange(40.0)}
    found = made(0.95, folds=5, **maps)[1]
    assert found.at(0.8) == made(0.8, folds=5, **maps)[1] and found.at(0.95) == found
    assert "5 folds" in found.describe() and "that were not fitted on" in made()[1].describe()
    assert made()[1].at(0.7) == made(0.7)[1]


def test_a_calibration_of_an_earlier_version_is_read():
    old = {
        "image": {"threshold": 3.9, "typical": 2.5}, "pixel": None, "quantile": 0.78,
        "scores": [1.0, 2.0, 3.0, 4.0], "files": list("abcd"), "count": 4, "flagged": 1,
    }  # fmt: skip
    found = Calibration.from_dict(old)
    assert found.flagged == 1 and found.folds == 0 and found.grain is None
    # It put the threshold between two scores: more than 1 of 5 lie above it.
    assert found.expected_rate == pytest.approx(0.22)
    assert Calibration.from_dict(found.as_dict()) == found
