"""The table of a run: categories as rows, the five metrics as columns, averages last."""

from imvad_jax.evaluation import mean_over_categories
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.text_table import Form, format_rows

Rows = dict[str, dict[str, float | None]]  # {category: {metric: figure}}


def average_row(rows: Rows) -> tuple[str, dict[str, float | None]]:
    """The label and the figures of the last row.

    Plain means over the categories where the figure is defined; the label says how many they are,
    and a figure that rests on fewer categories than the others is told apart there:
    `average (15 of 15; pixel AP 14)`.
    """
    means, counts = mean_over_categories(rows)
    used = {metric.key: counts.get(metric.key, (0, 0))[0] for metric in METRICS}
    most = max(used.values())
    fewer = [f"{m.label} {used[m.key]}" for m in METRICS if 0 < used[m.key] < most]
    label = f"average ({'; '.join([f'{most} of {len(rows)}', *fewer])})"
    return label, {metric.key: means.get(metric.key) for metric in METRICS}


def format_table(rows: Rows, markdown: bool = False) -> str:
    """Fixed-width text, or Markdown, with one row per category and their average.

    Args:
      rows: `{category: {metric: figure or None}}`; printed in the order given.
      markdown: Whether to draw the rules of a Markdown table.
    """
    label, means = average_row(rows)
    head = ["category", *(metric.label for metric in METRICS)]
    cells = [
        [name, *(format_value(row.get(metric.key)) for metric in METRICS)]
        for name, row in [*rows.items(), (label, means)]
    ]
    return format_rows(head, cells, Form.MARKDOWN if markdown else Form.TOTAL)
