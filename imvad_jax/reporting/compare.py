"""Published figures for a row of our table, and the differences to them."""

import dataclasses
import functools
from collections.abc import Mapping

from imvad_jax.reporting import published
from imvad_jax.reporting.grid import AVERAGE, LABELS, Grid, Row
from imvad_jax.reporting.metric_names import mean_of


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published row. `values` by (category, metric); an average is given where it is whole."""

    source: str
    backbone: str
    values: Mapping[tuple[str, str], float]

    @property
    def label(self) -> str:
        """Source and backbone: every published row shows its own."""
        return f"{self.source} ({published.backbone_title(self.backbone)})"

    def value(self, row: Row, column: str, metric: str) -> float | None:
        """The figure that stands beside ours; None if it was not published.

        In the column `average` it is the mean over the categories that ours is over, where all of
        them were published; over all fifteen, the published average (misprints corrected).
        """
        if column != AVERAGE:
            return self.values.get((column, metric))
        names = row.categories_with(metric)
        mean, count = mean_of(self.values.get((name, metric)) for name in names)
        if count < len(names) or not count:
            return None
        if set(names) == set(published.categories()):
            return self.values.get((AVERAGE, metric), mean)
        return mean


def benchmark(grid: Grid, row: Row) -> Reference | None:
    """The row of the published table; None for another dataset or the baseline."""
    return next((ref for ref in _references(grid, row) if _is_benchmark(row, ref)), None)


def same_backbone(grid: Grid, row: Row) -> list[Reference]:
    """Published rows with the backbone of ours, where the published table used another one."""
    table = benchmark(grid, row)
    ours = published.backbone_title(row.backbone)
    if table is None or row.backbone == "none" or published.backbone_title(table.backbone) == ours:
        return []
    others = (ref for ref in _references(grid, row) if not _is_benchmark(row, ref))
    return [ref for ref in others if published.backbone_title(ref.backbone) == ours]


def _is_benchmark(row: Row, reference: Reference) -> bool:
    return reference.source == published.benchmark_source(row.method)


def _references(grid: Grid, row: Row) -> list[Reference]:
    """All published rows of a method that have a figure on a category of the grid."""
    if grid.dataset != published.DATASET:
        return []
    return [
        reference
        for reference in _published(row.method)
        if any(category in grid.categories for category, _ in reference.values)
    ]


@functools.cache
def _published(method: str) -> tuple[Reference, ...]:
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for category in (*published.categories(), AVERAGE):
        for source, backbone, metrics in published.tabulate(method, category):
            known = {(category, key): v for key, v in metrics.items() if key in LABELS}
            found.setdefault((source, backbone), {}).update(known)
    return tuple(Reference(*key, values) for key, values in found.items())


def difference(ours: float | None, theirs: float | None) -> float | None:
    """Ours less theirs; None where one is missing."""
    return None if ours is None or theirs is None else ours - theirs


def format_difference(value: float | None) -> str:
    """`+.012`, `-.003`, `.000`; `-` where there is none."""
    if value is None:
        return "-"
    text = f"{abs(value):.3f}".removeprefix("0")
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "-") + text
