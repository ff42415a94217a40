import math

import pytest

from imvad_jax.evaluation import mean_over_categories


def test_mean_by_name():
    rows = {"bottle": {"auroc": 0.9, "ap": 0.5}, "screw": {"ap": 0.7, "auroc": 0.7}}
    means, counts = mean_over_categories(rows)
    assert means == pytest.approx({"auroc": 0.8, "ap": 0.6})
    assert counts == {"auroc": (2, 2), "ap": (2, 2)}


def test_missing_values_are_left_out_and_counted():
    rows = {
        "bottle": {"auroc": 1.0, "pro": 0.9},
        "cable": {"auroc": math.nan, "pro": None},
        "screw": {"auroc": 0.5},
    }
    means, counts = mean_over_categories(rows)
    assert means == {"auroc": 0.75, "pro": 0.9}
    assert counts == {"auroc": (2, 3), "pro": (1, 3)}


def test_nothing_left():
    means, counts = mean_over_categories({"bottle": {"pro": math.nan}})
    assert math.isnan(means["pro"]) and counts == {"pro": (0, 1)}
    assert mean_over_categories({}) == ({}, {})


def test_order_of_categories_is_irrelevant():
    rows = {str(i): {"auroc": 1 / (i + 3)} for i in range(15)}
    backwards = dict(reversed(rows.items()))
    assert mean_over_categories(rows) == mean_over_categories(backwards)
