"""The table as Markdown, CSV and JSON."""

import io
import itertools
import json

from imvad_jax.reporting import csv_cells, published
from imvad_jax.reporting.compare import (
    Reference,
    benchmark,
    difference,
    format_difference,
    same_backbone,
)
from imvad_jax.reporting.grid import AVERAGE, LABELS, Figure, Grid, Row
from imvad_jax.reporting.metric_names import format_value
from imvad_jax.reporting.text_table import Form, format_rows, markdown_cell

CONVENTIONS = (
    "AP adds up the steps of the precision-recall curve; PRO is exact, over 8-connected regions, "
    "up to a false positive rate of .3 and divided by it. Maps are evaluated at the size that the "
    "method sees. Averages are plain means over the categories that were run. Trained methods are "
    "evaluated after their last epoch."
)


def column_names(compare: bool = False) -> list[str]:
    """The columns of the CSV file."""
    names = [
        "method", "metric", "category", "value", "spread", "seeds", "categories", "preset",
        "settings", "backbone", "published", "published_backbone", "published_source",
    ]  # fmt: skip
    extra = ["difference", "same_backbone", "same_backbone_source"] if compare else []
    return [*names, *extra, "error"]


def markdown(grid: Grid, compare: bool = False) -> str:
    """The table in the published form; with `compare`, published figures and differences follow
    each line.
    """
    columns = ["method", "metric", *map(markdown_cell, grid.columns)]
    lines, shown = [], False
    for row in grid.rows:
        references = [benchmark(grid, row), *same_backbone(grid, row)] if compare else []
        references = [reference for reference in references if reference]
        shown |= bool(references)
        for number, (metric, label) in enumerate(LABELS.items()):
            texts = [cell_text(grid, row, column, metric) for column in grid.columns]
            lines.append([row.title if not number else "", label, *texts])
            lines += _compared(grid, row, metric, references)
    parts = [f"# {grid.dataset or 'Table'}\n", _legend(grid), ""]
    parts += [format_rows(columns, lines, Form.COMPACT, left=2), "", _rows(grid)]
    if shown:
        parts += ["", f"**About the published rows.** {published.NOTE}"]
    parts += _lists(grid)
    return "\n".join(parts) + "\n"


def _legend(grid: Grid) -> str:
    finished = len(grid.in_state("finished"))
    return f"{finished} of {len(grid.cells)} cells finished. {CONVENTIONS}"


def cell_text(grid: Grid, row: Row, column: str, metric: str) -> str:
    """`.981`, `.981 ± .002`, `.981 (3 of 15)` for an average; `-` where the figure is undefined.

    `failed` where no seed finished and one failed, and nothing where none was run.
    """
    figure = grid.figure(row, column, metric)
    fewer = 0 < figure.count < figure.of
    if column == AVERAGE:
        return figure_text(figure) + (f" ({figure.count} of {figure.of})" if fewer else "")
    if not row.finished(column):
        failed = any(cell.state == "failed" for cell in row.cells.get(column, ()))
        return "failed" if failed else ""
    return figure_text(figure) + (f" ({figure.count} of {figure.of} seeds)" if fewer else "")


def figure_text(figure: Figure) -> str:
    """`.981 ± .002`; without spread `.981`."""
    spread = f" ± {format_value(figure.spread)}" if figure.spread is not None else ""
    return format_value(figure.value) + spread


def averages(grid: Grid) -> str:
    """The averages alone, for a terminal."""
    rows = [
        [row.title, *(cell_text(grid, row, AVERAGE, metric) for metric in LABELS)]
        for row in grid.rows
    ]
    return format_rows(("average", *LABELS.values()), rows, Form.PLAIN)


def _compared(grid: Grid, row: Row, metric: str, references: list[Reference]) -> list[list[str]]:
    """For each published row that has the metric: its figures, and ours less those."""
    lines = []
    for reference in references:
        theirs = [reference.value(row, column, metric) for column in grid.columns]
        if all(value is None for value in theirs):
            continue
        ours = [grid.figure(row, column, metric).value for column in grid.columns]
        differences = map(difference, ours, theirs)
        lines.append(["", f"published: {reference.label}", *map(format_value, theirs)])
        lines.append(["", "difference", *map(format_difference, differences)])
    return lines


def _rows(grid: Grid) -> str:
    """What each row was made with."""
    lines = [
        [
            row.title,
            row.settings,
            published.backbone_title(row.backbone),
            str(max((len(cells) for cells in row.cells.values()), default=0)),
            f"{sum(bool(row.finished(name)) for name in grid.categories)} of "
            f"{len(grid.categories)}",
        ]
        for row in grid.rows
    ]
    # The settings are Markdown already.
    head = ("method", "settings", "backbone", "seeds", "categories")
    return format_rows(head, lines, Form.COMPACT, left=3)


def _lists(grid: Grid) -> list[str]:
    parts = []
    if failed := grid.in_state("failed"):
        parts += ["", "## Failed", ""]
        parts += [f"- {markdown_cell(c.name)}: {markdown_cell(c.error or '')}" for c in failed]
    if waiting := grid.in_state("not finished"):
        parts += ["", "## Not finished", ""]
        parts += [f"- {markdown_cell(cell.name)}" for cell in waiting]
    if grid.notes:
        parts += ["", "## Notes", ""]
        parts += [f"- {markdown_cell(note)} ({markdown_cell(rows)})"
                  for note, rows in grid.notes.items()]  # fmt: skip
    return parts


def tidy_csv(grid: Grid, compare: bool = False) -> str:
    """One figure a line.

    `seeds` counts those of a cell, `categories` those of an average. A failed cell has its error
    and no value. What was not run is left out.
    """
    out, lines = io.StringIO(), []
    for row, metric, column in itertools.product(grid.rows, LABELS, grid.columns):
        figure = grid.figure(row, column, metric)
        average = column == AVERAGE
        errors = [cell.error for cell in row.cells.get(column, ()) if cell.error]
        finished = figure.count if average else len(row.finished(column))
        if not finished and not errors:
            continue
        table = benchmark(grid, row)
        theirs = table.value(row, column, metric) if table else None
        same, same_source = _same_backbone(grid, row, column, metric)
        lines.append(
            {
                "method": row.method,
                "metric": metric,
                "category": column,
                "value": _number(figure.value),
                "spread": _number(figure.spread),
                "seeds": "" if average else finished,
                "categories": f"{figure.count} of {figure.of}" if average else "",
                "preset": row.preset,
                "settings": row.settings.replace("**", ""),
                "backbone": row.backbone,
                "published": _number(theirs),
                "published_backbone": table.backbone if table and theirs is not None else "",
                "published_source": table.source if table and theirs is not None else "",
                "difference": _number(difference(figure.value, theirs)),
                "same_backbone": _number(same),
                "same_backbone_source": same_source,
                "error": "; ".join(errors),
            }
        )
    csv_cells.write_rows(out, column_names(compare), lines, line_end="\n")
    return out.getvalue()


def _same_backbone(grid: Grid, row: Row, column: str, metric: str) -> tuple[float | None, str]:
    """The first published figure with our backbone, where the table's is another; its source."""
    for reference in same_backbone(grid, row):
        if (value := reference.value(row, column, metric)) is not None:
            return value, reference.source
    return None, ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def as_json(grid: Grid) -> str:
    """The table and its cells, with all figures unrounded."""
    rows = [_json_row(grid, row) for row in grid.rows]
    cells = [
        {
            "path": cell.path,
            "method": cell.record["method"],
            "category": cell.category,
            "seed": cell.seed,
            "state": cell.state,
            "metrics": cell.metrics,
            "seconds": cell.seconds,
            "error": cell.error,
        }
        for cell in grid.cells
    ]
    has_published = any(row["published_source"] for row in rows)
    table = {
        "dataset": grid.dataset,
        "categories": list(grid.categories),
        "rows": rows,
        "cells": cells,
        "notes": grid.notes,
        "about_the_published_figures": published.NOTE if has_published else None,
    }
    return json.dumps(table, indent=1, allow_nan=False) + "\n"


def _json_row(grid: Grid, row: Row) -> dict:
    table = benchmark(grid, row)
    metrics: dict[str, dict] = {}
    for metric in LABELS:
        for column in grid.columns:
            figure = grid.figure(row, column, metric)
            if figure.count or row.finished(column):
                metrics.setdefault(metric, {})[column] = {
                    "value": figure.value,
                    "spread": figure.spread,
                    "categories" if column == AVERAGE else "seeds": [figure.count, figure.of],
                    "published": table.value(row, column, metric) if table else None,
                }
    return {
        "method": row.method,
        "title": row.title,
        "preset": row.preset,
        "settings": row.settings.replace("**", ""),
        "backbone": row.backbone,
        "published_backbone": table.backbone if table else None,
        "published_source": table.source if table else None,
        "metrics": metrics,
    }
