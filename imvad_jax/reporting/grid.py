"""The cells of a table on disk, and their means: methods as rows, categories as columns.

A cell is one method on one category with one seed. It has a run directory,
`<workdir>/<method>/<category>/<preset>-seed<k>`, which is finished when it holds metrics.json and
has failed when it holds error.json instead. A table is read only from there, so any process that
can access the directory can draw the whole table.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from imvad_jax import methods, names, sealed
from imvad_jax.errors import UserError
from imvad_jax.reporting.checked import check_metrics, check_timings
from imvad_jax.reporting.metric_names import METRICS, defined, mean_of
from imvad_jax.reporting.result_files import (
    BASELINE,
    backbone_of,
    folder_name,
    identity_key,
    settings_text,
)
from imvad_jax.training.record import FORMAT
from imvad_jax.training.record_check import check_record

AVERAGE = "average"  # the last column
ERROR = "error.json"  # of a cell that failed, beside what its run directory holds
# What the cells of one row have in common.
_ROW = ("dataset", "method", "preset", "overrides", "config", "weights", "tile", "overlap")
# As the published table calls the figures.
LABELS = dict(
    zip(
        (metric.key for metric in METRICS),
        ("Image AUC", "Image AP", "Pixel AUC", "Pixel AP", "Pixel PRO"),
        strict=True,
    )
)
_STAGES = ("decode", "fit", "checkpoint", "score", "metrics", "write")  # that do not overlap


def cell_dir(method: str, category: str, preset: str, seed: int) -> str:
    """The run directory of a cell, below the table's."""
    return f"{folder_name(method)}/{names.safe(category)}/{preset}-seed{seed}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell as found. `path` is its run directory below the table's, with forward slashes."""

    path: str
    record: Mapping  # of config.json, error.json or the plan: method, category, seed, preset, ...
    metrics: Mapping[str, float | None] | None = None  # None unless finished
    error: str | None = None  # why it failed
    seconds: float | None = None  # wall time of a finished cell
    has_report: bool = False

    @property
    def category(self) -> str:
        """Its category."""
        return self.record["category"]

    @property
    def seed(self) -> int:
        """Its seed."""
        return self.record["seed"]

    @property
    def state(self) -> str:
        """`finished`, `failed` or `not finished`."""
        if self.metrics is not None:
            return "finished"
        return "failed" if self.error is not None else "not finished"

    @property
    def name(self) -> str:
        """How it is called in lists: `PaDiM on bottle, seed 0`."""
        title = self.record.get("title") or self.record["method"]
        return f"{title} on {self.category}, seed {self.seed}"


def read_cell(workdir: str | Path, path: str) -> Cell | None:
    """The cell of a run directory; None where there is none.

    Raises:
      UserError: one of its files is damaged; it is named.
    """
    top = Path(workdir) / path
    place, failure = _record_path(top), _read(top / ERROR)
    record = _read(place)
    if record is None:
        return None
    for field in ("method", "category", "seed", "preset"):
        if record.get(field) is None:
            raise UserError(f"{place}: not the record of a run; '{field}' is missing")
    _check(place, "record", record, lambda found: check_record(found, FORMAT))
    if failure and not isinstance(failure.get("error", ""), str):
        raise UserError(f"{top / ERROR}: error is {failure['error']!r:.40}, expected a text")
    metrics = _read(top / "metrics.json")
    if metrics is not None:
        _check(top / "metrics.json", "metrics", metrics, check_metrics)
        walls = _walls(top / "timings.json")
        report = (top / "report.html").is_file()
        return Cell(path, record, metrics, None, round(sum(walls), 2), report)
    return Cell(path, record, error=failure.get("error", "failed") if failure else None)


def _record_path(top: Path) -> Path:
    """Where the record of a cell is, if there is one: a cell may fail before its run has one."""
    return top / ("config.json" if (top / "config.json").exists() else ERROR)


def _walls(path: Path) -> list[float]:
    """Seconds of the stages that a cell had."""
    stages = _read(path) or {}
    _check(path, "timings", stages, check_timings)
    return [stages[name]["wall_s"] for name in _STAGES if name in stages]


def _check(path: Path, what: str, found: Mapping, check: Callable[[Mapping], None]) -> None:
    try:
        check(found)
    except ValueError as error:
        raise UserError(f"{path}: not the {what} of a run ({error})") from None


def _read(path: Path) -> dict | None:
    try:
        value = sealed.read(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete its directory") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


@dataclasses.dataclass(frozen=True)
class Figure:
    """A value of the table.

    `spread` is the standard deviation over seeds (n - 1), None where there are not two. `count` of
    `of` says how many went into it: seeds of a cell, categories of an average.
    """

    value: float | None
    spread: float | None
    count: int
    of: int


@dataclasses.dataclass(frozen=True)
class Row:
    """The cells of one method in one setting: five lines of the table."""

    method: str
    title: str
    settings: str  # preset and overrides, in words
    preset: str
    backbone: str
    cells: Mapping[str, Sequence[Cell]]  # by category, seeds in order

    @property
    def is_baseline(self) -> bool:
        """Whether it is the raw-colour baseline."""
        return self.method == BASELINE

    def finished(self, category: str) -> list[Cell]:
        """The finished cells of a category."""
        return [cell for cell in self.cells.get(category, ()) if cell.state == "finished"]

    def figure(self, category: str, metric: str) -> Figure:
        """The mean over the finished seeds."""
        found = defined((cell.metrics or {}).get(metric) for cell in self.finished(category))
        mean, count = mean_of(found)
        spread = statistics.stdev(found) if count > 1 else None
        return Figure(mean, spread, count, len(self.cells.get(category, ())))

    def categories_with(self, metric: str) -> list[str]:
        """The categories on which a figure is there."""
        return [name for name in self.cells if self.figure(name, metric).count]

    def average(self, metric: str, of: int) -> Figure:
        """The mean over the categories that have the figure, of `of` in all.

        Its spread is that of the averages of the seeds, where each seed has them all.
        """
        names = self.categories_with(metric)
        mean, count = mean_of(self.figure(name, metric).value for name in names)
        by_seed: dict[int, list[float]] = {}
        for name in names:
            for cell in self.finished(name):
                for value in defined([(cell.metrics or {}).get(metric)]):
                    by_seed.setdefault(cell.seed, []).append(value)
        complete = all(len(values) == count for values in by_seed.values())
        means = [math.fsum(values) / count for values in by_seed.values()] if complete else []
        return Figure(mean, statistics.stdev(means) if len(means) > 1 else None, count, of)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A whole table."""

    dataset: str
    categories: tuple[str, ...]
    rows: tuple[Row, ...]  # sorted by method, the baseline last

    @property
    def columns(self) -> tuple[str, ...]:
        """The categories and their average."""
        return (*self.categories, AVERAGE)

    def figure(self, row: Row, column: str, metric: str) -> Figure:
        """What stands in a column of a row."""
        if column == AVERAGE:
            return row.average(metric, len(self.categories))
        return row.figure(column, metric)

    @property
    def cells(self) -> list[Cell]:
        """All cells, row by row."""
        return [cell for row in self.rows for name in self.categories
                for cell in row.cells.get(name, ())]  # fmt: skip

    def in_state(self, state: str) -> list[Cell]:
        """The cells of that state."""
        return [cell for cell in self.cells if cell.state == state]

    @property
    def notes(self) -> dict[str, str]:
        """What the runs note, and of which rows: `all methods`, or their names."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            for cells in row.cells.values():
                for note in (note for cell in cells for note in cell.record.get("notes") or ()):
                    named = found.setdefault(note, [])
                    if row.title not in named:
                        named.append(row.title)
        titles = {row.title for row in self.rows if not row.is_baseline}
        return {note: "all methods" if len(named) > 1 and titles <= set(named)
                else ", ".join(named) for note, named in found.items()}  # fmt: skip


def load_grid(workdir: str | Path, planned: Iterable[tuple[str, Mapping]] = ()) -> Grid:
    """The table of what `workdir` holds and of what is planned.

    Args:
      workdir: Directory of the table; need not exist yet.
      planned: Path and record of cells that belong to the table even where nothing lies on disk.

    Raises:
      UserError: a damaged file, or cells of more than one dataset.
    """
    root = Path(workdir)
    found = {}
    for path in sorted(root.glob("*/*/*-seed*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() and (cell := read_cell(root, name)):
            found[name] = cell
    for name, record in planned:
        found.setdefault(name, Cell(name, record))
    first = {cell.record.get("dataset") or "": cell.path for cell in reversed(found.values())}
    datasets = sorted(first)
    if len(datasets) > 1:
        where = (f"{name} ({_record_path(root / first[name])})" for name in datasets)
        raise UserError(
            f"--workdir={workdir} holds cells of the datasets {', '.join(where)}; a table is of "
            "one: choose another directory"
        )
    categories = sorted({cell.category for cell in found.values()})
    rows = [_row(cells, categories) for cells in _grouped(list(found.values()))]
    rows.sort(key=lambda row: (row.is_baseline, row.method, row.settings, row.backbone))
    return Grid(datasets[0] if datasets else "", tuple(categories), tuple(rows))


def _grouped(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each row. One without a result goes where its method and preset are."""
    groups: dict[str, list[Cell]] = {}
    homes: dict[tuple, list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: cell.state != "finished"):
        record = methods.with_newer_fields(dict(cell.record))
        overrides = sorted((record.get("overrides") or {}).items())
        home = record["method"], record["preset"], str(overrides), record["tile"], record["overlap"]
        if cell.state == "finished":
            group = groups.setdefault(identity_key(record, _ROW), [])
            homes.setdefault(home, group)
        else:
            group = homes.setdefault(home, [])
            if not any(group is known for known in groups.values()):
                groups[f"unfinished {home}"] = group
        group.append(cell)
    return list(groups.values())


def _row(cells: Sequence[Cell], categories: Sequence[str]) -> Row:
    record = cells[0].record
    ordered = sorted(cells, key=lambda cell: cell.seed)
    return Row(
        method=record["method"],
        title=record.get("title") or record["method"],
        settings=settings_text(record),
        preset=record["preset"],
        backbone=backbone_of(record),
        cells={name: [c for c in ordered if c.category == name] for name in categories
               if any(c.category == name for c in cells)},
    )  # fmt: skip
