"""The table of RESULTS.md that says how far results depend on the brightness of the images."""

from collections.abc import Mapping, Sequence

from imvad_jax.reporting.metric_names import BRIGHTNESS_MATCHED, CORRELATION, METRICS, spread
from imvad_jax.reporting.text_table import Form, format_rows

NOTE = """\
**Brightness.** *rank correlation* is Spearman's, between the scores of the good test images and the
number of the audit (such as mean grey) that differs most between good and defective test images, or
else between training and test; scores of good images should follow nothing. The other figures are
of the same detector on the test images with the mean of each shifted to the mean of the training
images (`--brightness_matched`).
"""


def brightness_table(
    columns: Sequence[str], left: int, rows: Sequence[tuple[Sequence[str], Sequence[Mapping]]]
) -> str:
    """The table with its note; empty where no result has any of its figures.

    Args:
      columns: headings of the labels.
      left: how many of these are words.
      rows: labels of a row, and the `metrics` of its seeds.
    """
    keys = [CORRELATION, *(BRIGHTNESS_MATCHED + metric.key for metric in METRICS)]
    cells = [
        [*labels, *(spread([metrics.get(key) for metrics in members]) for key in keys)]
        for labels, members in rows
        if any(key in metrics for metrics in members for key in keys)
    ]
    if not cells:
        return ""
    headings = (*columns, "rank correlation", *(metric.label for metric in METRICS))
    return f"{NOTE}\n{format_rows(headings, cells, Form.COMPACT, left=left)}"
