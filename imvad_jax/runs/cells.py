"""Runs one method on several categories: a request is split into cells, run one by one."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from imvad_jax import backbones, methods, names, presets
from imvad_jax.data import layouts
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, say
from imvad_jax.evaluation.calibration import check_quantile
from imvad_jax.model.model import HOLDOUT
from imvad_jax.owned import CATEGORIES, check_directory
from imvad_jax.reporting import report
from imvad_jax.reporting.metric_names import format_value
from imvad_jax.reporting.table import format_table
from imvad_jax.runs import cell, checks, folds, loop, memory
from imvad_jax.runs.specs import Cell, Options, Work
from imvad_jax.training.limit import Limit, Stopped
from imvad_jax.training.loops import AUTO
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.record import read_record


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A request to run one method on several categories of a dataset."""

    method: str
    dataset: str
    categories: Sequence[str]  # that are there; of several, each gets a folder in `workdir`
    workdir: Path
    preset: str = "official"
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data_dir: str | None = None  # None: the decoded cache is used alone
    decoded_dir: str | None = None
    weights: str | None = None
    seed: int = 0
    holdout: float | None = None  # None: HOLDOUT for the dataset "folder", else 0
    checkpoint: Path | None = None  # a run whose fitted detector is evaluated
    tiling: Tiling | None = None
    reading: Reading = AS_IS
    options: Options = dataclasses.field(default_factory=Options)
    command: str = ""

    @property
    def cells(self) -> list[Cell]:
        """A cell for each category.

        Raises:
          UserError: an unknown method, preset or field, or values that do not go together.
        """
        config = presets.resolve(self.method, self.preset, self.overrides)
        if self.options.results_dir and self.options.full_resolution_metrics:
            raise UserError(
                "--results_dir: cannot be combined with --full_resolution_metrics; result files "
                "hold metrics at the input size of the method"
            )
        self._check_loop()
        several = len(self.categories) > 1
        return [
            Cell(
                method=self.method, preset=self.preset, overrides=self.overrides, config=config,
                dataset=self.dataset, category=name,
                run_dir=self.workdir / names.safe(name) if several else self.workdir,
                data_dir=self.data_dir, decoded_dir=self.decoded_dir, weights=self.weights,
                seed=self.seed, checkpoint=self.checkpoint, holdout=self._share,
                may_fold=self.holdout is None,
                tiling=self.tiling, reading=self.reading, options=self.options,
                command=self.command,
            )
            for name in self.categories
        ]  # fmt: skip

    def _check_loop(self) -> None:
        """Raises UserError if a training loop is requested but nothing is trained."""
        wanted = self.options.training_loop
        if wanted == AUTO:
            return
        if self.checkpoint:
            raise UserError("--training_loop: with --checkpoint nothing is fitted; omit the flag")
        if "gradient" not in methods.get(self.method).detector.phases:
            raise UserError(f"--training_loop={wanted}: {self.method} is not trained; omit it")

    @property
    def _share(self) -> float:
        """The share of good images to hold out. Raises UserError where it makes no sense."""
        share = self.holdout
        if self.checkpoint:
            if share:
                raise UserError("--holdout: with --checkpoint nothing is fitted; omit the flag")
            return 0.0
        if share is None:
            share = HOLDOUT if self.dataset == "folder" else 0.0
        if not 0 <= share < 1:
            raise UserError(f"--holdout={share}: expected a share from 0 to below 1")
        check_quantile(self.options.threshold_quantile)
        if share and self.options.results_dir:
            raise UserError(
                "--results_dir: result files are for detectors fitted on all good images; add "
                "--holdout=0"
            )
        return share


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """What the cells of a run are made with."""

    parallel: Parallel
    limit: Limit = dataclasses.field(default_factory=Limit)
    log: Callable[[str], object] = say

    def begin(self, asked: Cell) -> Work:
        """Says which cell is begun; its clocks are its own."""
        self.log(f"== {asked.title}, {asked.dataset}/{asked.category}")
        return Work(parallel=self.parallel, log=self.log, limit=self.limit)


def check_before(workdir: Path, cells: Sequence[Cell]) -> None:
    """What can be said of the cells before any image is read. Raises UserError."""
    if len(cells) > 1:
        check_directory(workdir, CATEGORIES)
    for asked in cells:
        checks.check_before(asked)


def run_cells(
    workdir: Path, cells: Sequence[Cell], how: Making
) -> tuple[dict[str, dict], Stopped | None]:
    """Makes the cells; of several, an index page as well.

    Returns the metrics by category, and why some are missing where the time was over. Categories
    without test images have none, and of several hosts the first alone has any.

    Raises:
      UserError: as `run_cell`.
    """
    rows, stopped = {}, None
    for asked in cells:
        work = how.begin(asked)
        try:
            result = cell.run_cell(asked, work)
        except Stopped as stop:
            stopped = stop
            break
        if result is not None and result["metrics"]:
            rows[asked.category] = result["metrics"]
    if rows and len(cells) > 1:
        report.write_index(workdir, rows)
    return rows, stopped


def result(workdir: Path, asked: Sequence[Cell], rows: dict[str, dict]) -> tuple[str, dict]:
    """What came of `run_cells`, in words and as a JSON document.

    The document has `workdir`, `page` (to open in a browser; None where nothing was evaluated) and
    `categories`: by name the `directory` and the `metrics` of each.
    """
    page = "index.html" if len(asked) > 1 else "report.html"
    there = bool(rows) and (workdir / page).is_file()
    document = {
        "workdir": str(workdir),
        "page": str(workdir / page) if there else None,
        "categories": {
            one.category: {"directory": str(one.run_dir), "metrics": rows.get(one.category)}
            for one in asked
        },
    }
    lines = [format_table(rows)] if rows else []
    return "\n".join(
        [*lines, f"written to {workdir}{f'; open {page} there' if there else ''}"]
    ), document


def what_is_needed(asked: Cell, how: Making) -> dict:
    """The configuration of a cell and the memory that it needs, in words; nothing is written.

    Raises:
      UserError: where the run would.
      Stopped: there is no time left for the images.
    """
    work = how.begin(asked)
    data = cell.open_data(asked, work)
    checks.check_images(data)
    checks.check_pictures(asked.config)
    taken = loop.find_loop(
        asked, asked.detector, data, work.parallel, stored=read_record(asked.run_dir)
    )
    divided = folds.find_folds(asked, data)
    parts = memory.estimate(asked.detector, data, work.parallel, loop=taken, folds=divided)
    return {
        "category": asked.category,
        "config": dataclasses.asdict(asked.config),
        "memory": memory.check(parts, memory.available_bytes(work.parallel.local[0])),
    }


def needed_text(needed: Mapping) -> str:
    """What `what_is_needed` found, as text."""
    return f"{json.dumps(needed['config'], indent=1)}\n{needed['memory']}"


def registries() -> str:
    """All methods, backbones and datasets, a line each."""
    lines = ["methods:"]
    for name, method in methods.METHODS.items():
        lines.append(f"  {name:12} {method.title}; presets: {', '.join(presets.of(name))}")
        lines += [f"  {'':12} {text}" for text in _reached(name)]
    lines.append("backbones:")
    for name, spec in backbones.BACKBONES.items():
        lines.append(f"  {name:18} weights: hub:{spec.hub}@main")
    lines.append("datasets:")
    for name, layout in layouts.LAYOUTS.items():
        lines.append(f"  {name:12} {layout.expected}")
    return "\n".join(lines)


def _reached(method: str) -> list[str]:
    """The image AUROC that the presets of a method reached, a line each."""
    lines = []
    for preset in presets.of(method):
        rows = [row for row in presets.reached(method, preset) if not row["overrides"]]
        found = [f"{r['category']} {format_value(r['metrics']['image_auroc'])}" for r in rows]
        if found:
            lines.append(f"{preset} reached an image AUROC of {', '.join(found)}")
    return lines
