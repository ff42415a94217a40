"""Curves against hand-made values; figures against bad input."""

import io

import numpy as np
import pytest
from PIL import Image

from imvad_jax.reporting import plots


def test_roc_with_ties():
    scores, labels = np.array([3.0, 2.0, 2.0, 1.0]), np.array([1, 1, 0, 0])
    false, true = plots.roc_curve(scores, labels)
    np.testing.assert_allclose(false, [0, 0, 0.5, 1])
    np.testing.assert_allclose(true, [0, 0.5, 1, 1])
    assert plots.auroc(scores, labels) == pytest.approx(0.875)


def test_curves_agree_with_their_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = np.round(rng.random(200) + 0.3 * labels, 2)
    bad, good = scores[labels == 1], scores[labels == 0]
    pairs = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    assert plots.auroc(scores, labels) == pytest.approx(pairs)
    recall, precision = plots.precision_recall_curve(scores, labels)
    thresholds = np.unique(scores)[::-1]
    np.testing.assert_allclose(recall, [(bad >= t).mean() for t in thresholds])
    np.testing.assert_allclose(precision, [labels[scores >= t].mean() for t in thresholds])


def test_one_kind_only():
    assert plots.auroc(np.arange(3.0), np.ones(3)) is None


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([1, 2, 3, 4], [0, 0, 1, 1]), ([1, 2], [0, 0]), ([5, 5, 5], [0, 1, 1]), ([], []),
     ([np.nan, 1, np.inf, 2], [0, 0, 1, 1])],
)  # fmt: skip
def test_figure_is_drawn_and_reproducible(scores, labels):
    def draw():
        kinds = np.array(["$good$" if not label else f"kind $_{label}" for label in labels], str)
        figure = plots.score_figure(np.array(scores, np.float32), np.array(labels, int), kinds)
        return plots.figure_png(figure, dpi=50)

    png = draw()
    assert Image.open(io.BytesIO(png)).size == (620, 175)
    assert png == draw()


def test_histogram_counts_kinds():
    figure = plots.score_figure(
        np.arange(5.0), np.array([0, 0, 1, 1, 1]), np.array(["good", "good", "b", "a", "a"])
    )
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["good (2)", "a (2)", "b (1)"]
