"""The table of a run: categories down, the five figures across, averages at the bottom."""

from imvad_jax.evaluation import mean_over_categories
from imvad_jax.reporting.metric_names import METRICS, format_value

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
    """Fixed-width text, or Markdown, of one row a category and their average.

    Args:
      rows: `{category: {metric: figure or None}}`; printed in the order given.
      markdown: Whether to draw the rules of a Markdown table.
    """
    label, means = average_row(rows)
    lines = [["category", *(metric.label for metric in METRICS)]]
    for name, row in [*rows.items(), (label, means)]:
        cells = [format_value(row.get(metric.key)) for metric in METRICS]
        lines.append([name.replace("|", r"\|") if markdown else name, *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [
        [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:]))]
        for line in lines
    ]
    if markdown:
        rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        padded.insert(1, rules)
        return "\n".join(f"| {' | '.join(line)} |" for line in padded)
    rule = "-" * len("  ".join(padded[0]))
    text = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([text[0], rule, *text[1:-1], rule, text[-1]])
