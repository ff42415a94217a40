"""The table as one self-contained HTML page, with links to the reports of the runs."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from imvad_jax.reporting import published
from imvad_jax.reporting.compare import (
    Reference,
    benchmark,
    difference,
    format_difference,
    same_backbone,
)
from imvad_jax.reporting.grid import AVERAGE, LABELS, Cell, Figure, Grid, Row
from imvad_jax.reporting.grid_text import CONVENTIONS, cell_text
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.pages import write_page

# Differences of this size, and larger ones, have the full colour. Blue and vermilion of Okabe and
# Ito, which people who see no red or no green tell apart.
FULL_COLOUR = {"published": 0.05, "baseline": 0.3}
BETTER, WORSE = "0, 114, 178", "213, 94, 0"
OPACITY = 0.7


def write_grid_page(path: str | Path, grid: Grid, compare: bool = False) -> Path:
    """Writes the page; `compare` says whether the published rows are shown from the start."""
    return write_page(Path(path), "grid.html.j2", page_context(grid, compare))


def page_context(grid: Grid, compare: bool = False) -> dict:
    """What the template is given."""
    tables = {id(row): benchmark(grid, row) for row in grid.rows}
    baseline = next((row for row in grid.rows if row.is_baseline), None)
    references = {
        "published": "the published figure" if any(tables.values()) else None,
        "baseline": "the raw-colour baseline" if baseline else None,
    }
    references = {key: label for key, label in references.items() if label}
    shown = next(iter(references), None)  # the published figure if there is one
    failed, waiting = grid.in_state("failed"), grid.in_state("not finished")
    seeds = sorted({cell.seed for cell in grid.cells})
    return {
        "title": grid.dataset or "Table",
        "summary": _summary(grid, seeds),
        "conventions": CONVENTIONS,
        "compare": compare and any(tables.values()),
        "references": references,
        "reference": shown,
        "full_colour": FULL_COLOUR,
        "better": BETTER,
        "worse": WORSE,
        "opacity": OPACITY,
        "metrics": [{"key": m.key, "label": LABELS[m.key], "meaning": m.meaning} for m in METRICS],
        "columns": grid.columns,
        "average": AVERAGE,
        "groups": [_group(grid, row, tables[id(row)], baseline, shown) for row in grid.rows],
        "made_with": [_made_with(grid, row, tables[id(row)]) for row in grid.rows],
        "failed": [{"name": c.name, "error": c.error, "path": c.path} for c in failed],
        "waiting": [cell.name for cell in waiting],
        "notes": grid.notes,
        "published_note": published.NOTE if any(tables.values()) else None,
        "runs": _runs(grid) if len(seeds) > 1 else None,
    }


def _summary(grid: Grid, seeds: list[int]) -> str:
    parts = [f"{len(grid.in_state('finished'))} of {len(grid.cells)} cells finished"]
    parts += [f"{len(found)} {state}" for state in ("failed", "not finished")
              if (found := grid.in_state(state))]  # fmt: skip
    if len(seeds) > 1:
        parts.append(f"{len(seeds)} seeds: mean ± standard deviation")
    return ", ".join(parts[:1]) + "".join(f" · {part}" for part in parts[1:])


def _group(
    grid: Grid, row: Row, table: Reference | None, baseline: Row | None, shown: str | None
) -> dict:
    """The lines of a method: one a metric, each followed by its published ones."""
    references = [reference for reference in (table, *same_backbone(grid, row)) if reference]
    lines = []
    for metric in LABELS:
        others = {
            reference.label: [reference.value(row, column, metric) for column in grid.columns]
            for reference in references
        }
        ours = [grid.figure(row, column, metric).value for column in grid.columns]
        lines.append(
            {
                "metric": metric,
                "label": LABELS[metric],
                "cells": [
                    _cell(grid, row, column, metric, table=table, baseline=baseline, shown=shown)
                    for column in grid.columns
                ],
                "published": [
                    {
                        "label": label,
                        "cells": [
                            {"text": format_value(value), "difference": _signed(mine, value)}
                            for mine, value in zip(ours, values, strict=True)
                        ],
                    }
                    for label, values in others.items()
                    if any(value is not None for value in values)
                ],
            }
        )
    backbone = published.backbone_title(row.backbone) if row.backbone != "none" else "no backbone"
    return {"title": row.title, "backbone": backbone, "preset": row.preset, "lines": lines}


def _signed(ours: float | None, theirs: float | None) -> str:
    change = difference(ours, theirs)
    return "" if change is None else format_difference(change)


def _cell(
    grid: Grid,
    row: Row,
    column: str,
    metric: str,
    *,
    table: Reference | None,
    baseline: Row | None,
    shown: str | None,
) -> dict:
    """One cell of the page: its text, link, tooltip, colour and differences."""
    figure = grid.figure(row, column, metric)
    cells = () if column == AVERAGE else row.cells.get(column, ())
    errors = [f"seed {cell.seed}: {cell.error}" for cell in cells if cell.state == "failed"]
    references = {
        "published": table.value(row, column, metric) if table else None,
        "baseline": _of_baseline(grid, row, baseline, column, metric),
    }
    differences = {key: difference(figure.value, value) for key, value in references.items()}
    text = cell_text(grid, row, column, metric)
    if figure.count:
        text = format_value(figure.value)
    linked = [cell for cell in cells if cell.has_report]
    return {
        "text": text,
        "spread": f"± {format_value(figure.spread)}" if figure.spread is not None else "",
        "fewer": f"{figure.count} of {figure.of}" if 0 < figure.count < figure.of else "",
        "value": figure.value,
        "url": report_url(linked[0]) if linked and figure.count else None,
        "state": _state(cells, figure) if column != AVERAGE else "average",
        "errors": "; ".join(errors),
        "tip": _tip(
            row, column, metric, figure, references=references, table=table, cells=cells,
            errors=errors,
        ),
        "differences": {key: f"{value:.6f}" for key, value in differences.items()
                        if value is not None},
        "signed": {key: format_difference(value) for key, value in differences.items()
                   if value is not None},
        "colour": colour(differences.get(shown or ""), shown),
    }  # fmt: skip


def _of_baseline(grid: Grid, row: Row, baseline: Row | None, column: str, metric: str):
    """The baseline's figure beside ours; an average only over the same categories."""
    if baseline is None or row.is_baseline:
        return None
    if column == AVERAGE and baseline.categories_with(metric) != row.categories_with(metric):
        return None
    return grid.figure(baseline, column, metric).value


def _state(cells, figure: Figure) -> str:
    """`finished`, `failed` (none finished and one failed), or `missing`."""
    if any(cell.state == "finished" for cell in cells):
        return "finished" if figure.count else "undefined"
    return "failed" if any(cell.state == "failed" for cell in cells) else "missing"


def colour(change: float | None, reference: str | None) -> str | None:
    """The background of a cell by its difference: blue is better, vermilion worse."""
    if change is None or reference is None:
        return None
    strength = min(abs(change) / FULL_COLOUR[reference], 1.0)
    return f"rgba({BETTER if change > 0 else WORSE}, {OPACITY * strength:.3f})"


def _tip(row, column, metric, figure, *, references, table, cells, errors) -> str:
    """The tooltip: everything that is known about the cell."""
    where = "average" if column == AVERAGE else column
    lines = [f"{row.title}, {where}, {LABELS[metric]}"]
    if figure.count:
        spread = f" ± {format_value(figure.spread)}" if figure.spread is not None else ""
        what = "categories" if column == AVERAGE else "seeds"
        lines.append(f"{format_value(figure.value)}{spread} ({figure.count} of {figure.of} {what})")
    names = {"published": table.label if table else "", "baseline": "raw-colour baseline"}
    for key, value in references.items():
        if value is not None and figure.value is not None:
            signed = format_difference(figure.value - value)
            lines.append(f"{names[key]}: {format_value(value)}, difference {signed}")
    seconds = [cell.seconds for cell in cells if cell.seconds is not None]
    if seconds:
        lines.append(f"{statistics.fmean(seconds):.0f} s")
    return "\n".join([*lines, *errors])


def report_url(cell: Cell) -> str:
    """The address of a run's report, from the table's page."""
    return f"{quote(cell.path)}/report.html"


def _made_with(grid: Grid, row: Row, table: Reference | None) -> dict:
    """A line of the list of settings."""
    seconds = [cell.seconds for cells in row.cells.values() for cell in cells
               if cell.seconds is not None]  # fmt: skip
    weights = next((cell.record["weights"] for cells in row.cells.values() for cell in cells
                    if cell.record.get("weights")), None)  # fmt: skip
    return {
        "title": row.title,
        "settings": row.settings.replace("**", ""),
        "backbone": published.backbone_title(row.backbone),
        "weights": _weights(weights),
        "published": published.benchmark_backbone(row.method) if table else "",
        "categories": f"{sum(bool(row.finished(name)) for name in grid.categories)} of "
        f"{len(grid.categories)}",
        "seconds": f"{statistics.median(seconds):.0f}" if seconds else "-",
    }


def _weights(weights: Mapping | None) -> str:
    if not weights:
        return "-"
    source = weights["source"]
    return source if source.startswith(("hub:", "package:")) else Path(source).name


def _runs(grid: Grid) -> list[dict]:
    """Links to each run: one line per row, one list of seeds per category."""
    return [
        {
            "title": row.title,
            "cells": [
                [
                    {"seed": cell.seed, "state": cell.state,
                     "url": report_url(cell) if cell.has_report else None}
                    for cell in row.cells.get(name, ())
                ]
                for name in grid.categories
            ],
        }
        for row in grid.rows
    ]  # fmt: skip
