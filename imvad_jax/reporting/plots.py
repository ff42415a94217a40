"""How image scores separate good from defective: histogram, ROC, precision over recall."""

import base64
import io
from typing import TYPE_CHECKING

import numpy as np

from imvad_jax.marks import MARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD = "#1f9e89"
DEFECTS = ("#d1495b", "#edae49", "#9b72cf", "#f4845f", "#3d7ea6", "#b56576", "#9a8c5c", "#4f5d75")
CURVE = "#d1495b"
# Mid-grey reads on white and on near-black: the page has both.
INK = "#7d8590"
BINS = 30


def roc_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1).

    Args:
      scores: Float `[N]`; larger is more anomalous.
      labels: 0 or 1 `[N]`; both must occur.
    """
    false, true = _counts(scores, labels)
    return false / false[-1], true / true[-1]


def precision_recall_curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every distinct threshold, from high to low.

    Average precision is the sum of precision times the steps of recall, starting from 0.
    """
    false, true = _counts(scores, labels)
    return true[1:] / true[-1], true[1:] / (true[1:] + false[1:])


def auroc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Area under the ROC; None unless both kinds occur."""
    if not (0 < np.count_nonzero(labels) < len(labels)):
        return None
    false, true = roc_curve(scores, labels)
    return float(np.trapezoid(true, false))


def _counts(scores, labels):
    """Good and defective images at or above each distinct score, from high; led by (0, 0)."""
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], np.asarray(labels)[order] == 1
    last = np.r_[np.flatnonzero(np.diff(scores)), len(scores) - 1]  # of each group of ties
    true = np.cumsum(positive)[last]
    return np.r_[0, last + 1 - true], np.r_[0, true]


def score_figure(scores: np.ndarray, labels: np.ndarray, defects: np.ndarray) -> "Figure":
    """The three plots side by side; a plot that is undefined says so.

    Args:
      scores: Float `[N]`; scores that are not finite are left out.
      labels: 0 or 1 `[N]`.
      defects: Kind of each image, text `[N]`.
    """
    from matplotlib.figure import Figure  # here: slow to import, and many programs draw nothing

    scores, labels, defects = (np.asarray(array) for array in (scores, labels, defects))
    finite = np.isfinite(scores)
    scores, labels, defects = scores[finite].astype(np.float64), labels[finite], defects[finite]
    figure = Figure(figsize=(12.4, 3.5), layout="constrained")
    histogram, roc, precision = figure.subplots(1, 3, width_ratios=(1.6, 1, 1))
    _draw_histogram(histogram, scores, labels, defects)
    both = 0 < np.count_nonzero(labels) < len(labels)
    prevalence = float(np.mean(labels == 1)) if len(labels) else 0.0
    for axes, title, across, up in (
        (roc, "ROC", "good images flagged", "defects found"),
        (precision, "precision over recall", "defects found (recall)", "precision"),
    ):
        axes.set(title=title, xlabel=across, ylabel=up, xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        if not both:
            text = "undefined: needs good and\ndefective images"
            axes.text(0.5, 0.5, text, ha="center", va="center", color=INK)
    if both:
        roc.plot(*roc_curve(scores, labels), color=CURVE, lw=2)
        roc.plot((0, 1), (0, 1), color=INK, lw=1, ls=":", label="guessing")
        recall, value = precision_recall_curve(scores, labels)
        # The step that average precision adds up, not a line between the points.
        precision.step(np.r_[0, recall], np.r_[value[0], value], color=CURVE, lw=2, where="pre")
        precision.axhline(prevalence, color=INK, lw=1, ls=":", label="guessing")
        for axes in (roc, precision):
            axes.legend(frameon=False, labelcolor=INK, loc="lower right", fontsize=9)
    for axes in (histogram, roc, precision):
        soften(axes)
    return figure


def _draw_histogram(axes, scores, labels, defects) -> None:
    """Good images and the kinds of defect, stacked."""
    axes.set(title="image scores", xlabel="score", ylabel="images")
    if not len(scores):
        return
    kinds = sorted(set(defects[labels == 1].tolist()))
    groups = [scores[labels == 0], *(scores[(labels == 1) & (defects == k)] for k in kinds)]
    colors = [GOOD, *(DEFECTS[number % len(DEFECTS)] for number in range(len(kinds)))]
    low, high = float(scores.min()), float(scores.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    axes.hist(
        groups, bins=np.linspace(low, high, BINS + 1), stacked=True, color=colors,
        label=[f"good ({len(groups[0])})", *(f"{k} ({len(g)})" for k, g in zip(kinds, groups[1:]))],
    )  # fmt: skip
    axes.yaxis.get_major_locator().set_params(integer=True)
    legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK, ncols=1 + len(kinds) // 6)
    for text in legend.get_texts():
        text.set_parse_math(False)  # names of folders may hold dollar signs


def soften(axes) -> None:
    """Two spines, and colours that read on white and on black."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set(color=INK, fontsize=10)


def figure_png(figure: "Figure", dpi: int = 150) -> bytes:
    """The figure as PNG with a clear background; equal figures give equal bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    about = {"Software": None, "Comment": MARK}
    figure.savefig(buffer, format="png", dpi=dpi, transparent=True, metadata=about)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """PNG bytes as a URL that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
