"""The promised rate is kept, whatever the distribution of the scores and however few there are."""

import re
from pathlib import Path

import pytest

from imvad_jax.benchmarks import promised_rates
from imvad_jax.data.holdout import number_of_folds

DOCS = Path(__file__).resolve().parents[2] / "docs/thresholds.md"


@pytest.mark.parametrize("count", promised_rates.COUNTS)
@pytest.mark.parametrize("name", promised_rates.SCORES)
def test_no_more_new_good_images_are_flagged_than_promised(name, count):
    found = promised_rates.held_out_rate(promised_rates.SCORES[name], count, 1000, seed=1)
    promised = promised_rates.promised(count)
    assert found.mean <= promised + 3 * found.error
    if name in ("normal", "lognormal"):  # without ties it is the promised rate, and not less
        assert found.mean >= promised - 3 * found.error
    assert promised == pytest.approx(max(1 / (count + 1), promised), abs=1e-12)
    assert promised <= (0.05 if count >= 19 else 1 / (count + 1)) + 1e-12


@pytest.mark.parametrize("count", [5, 10, 20, 50])
@pytest.mark.parametrize("name", promised_rates.DETECTORS)
def test_folds_keep_what_they_promise(name, count):
    folds = number_of_folds(("statistics",), count, promised_rates.HOLDOUT)
    assert folds == {5: 5, 10: 10, 20: 10, 50: 10}[count]
    fit = promised_rates.DETECTORS[name]
    found = promised_rates.fitted_rate(fit, count, folds, 60, seed=1)
    assert found.mean <= promised_rates.promised(count) + 3 * found.error


def test_the_page_holds_the_tables():
    shown = promised_rates.tables(draws=2, fitted_draws=2)
    heads = [line for line in shown.splitlines() if re.search("[a-z]", line)]
    page = DOCS.read_text()
    assert "python -m imvad_jax.benchmarks.promised_rates" in page
    for line in heads:
        # The figures are of many more draws; what they stand for is the same.
        first = " | ".join(line.split(" | ")[:2])
        assert first in page, line
