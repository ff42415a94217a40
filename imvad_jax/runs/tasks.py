"""The cells of a table as tasks, which are sent to worker processes as JSON."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from imvad_jax import methods, presets, sealed
from imvad_jax.commands import command
from imvad_jax.data.reading import AS_IS, Reading
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, warn_once
from imvad_jax.files import NotWritten
from imvad_jax.marks import is_ours, is_result
from imvad_jax.owned import RUN, check_directory, refuse_foreign
from imvad_jax.reporting.grid import ERROR, cell_dir
from imvad_jax.reporting.report import write_report
from imvad_jax.reporting.result_files import result_path
from imvad_jax.runs import identity
from imvad_jax.runs.record import write_json, write_result
from imvad_jax.runs.specs import Cell, Options
from imvad_jax.training.loops import AUTO

_STORED = ("config", "metrics", "timings")  # what a result file is made of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One cell: everything a worker needs to make it."""

    method: str
    preset: str
    overrides: dict[str, str]
    category: str
    seed: int
    dataset: str
    data_dir: str | None
    weights: str | None
    workdir: str  # of the table
    decoded_dir: str | None
    results_dir: str
    options: dict  # fields of specs.Options, but for results_dir
    tile: int = 0  # pixels; 0: images are looked at whole
    overlap: int = 0
    reading: dict = dataclasses.field(default_factory=dict)  # fields of Reading
    seconds_left: float | None = None  # for the cell, when it is given to a worker; None: any

    @property
    def path(self) -> str:
        """The run directory, below the table's."""
        return cell_dir(self.method, self.category, self.preset, self.seed)

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return Path(self.workdir) / self.path

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f"{self.method}/{self.category} seed {self.seed}"

    @property
    def finished(self) -> bool:
        """Whether its figures are there."""
        return is_ours(self.run_dir / "metrics.json")

    @property
    def result_file(self) -> Path | None:
        """Its small result file; None if none is requested."""
        return Path(self.results_dir, result_path(self.record())) if self.results_dir else None

    @property
    def seconds(self) -> float | None:
        """What the finished cell took; None where that is not known."""
        try:
            stages = sealed.read(self.run_dir / "timings.json").values()
            return sum(stage["wall_s"] for stage in stages)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    @property
    def config(self) -> methods.DetectorConfig:
        """Its configuration."""
        return presets.resolve(self.method, self.preset, self.overrides)

    @property
    def tiling(self) -> Tiling | None:
        """Its tiles; None where images are looked at whole."""
        return Tiling(self.tile, self.overlap) if self.tile else None

    @property
    def command(self) -> str:
        """The command that makes this cell alone."""
        loop = self.options.get("training_loop", AUTO)
        given = {
            "method": self.method, "preset": self.preset, **self.overrides,
            "dataset": self.dataset, "data_dir": self.data_dir, "category": self.category,
            "seed": self.seed, "weights": self.weights, "workdir": self.run_dir,
            "holdout": 0 if self.dataset == "folder" else None,
            "tile": self.tile or None, "overlap": self.overlap if self.tile else None,
            "training_loop": loop if loop != AUTO else None,
            **{name: value for name, value in self.reading.items()
               if value != getattr(AS_IS, name)},
        }  # fmt: skip
        parts = [f"--{name}={value}" for name, value in given.items() if value is not None]
        return command("run", parts)

    @property
    def cell(self) -> Cell:
        """What a run makes of it."""
        return Cell(
            method=self.method, preset=self.preset, overrides=self.overrides, config=self.config,
            dataset=self.dataset, category=self.category, run_dir=self.run_dir,
            data_dir=self.data_dir, decoded_dir=self.decoded_dir, weights=self.weights,
            seed=self.seed, tiling=self.tiling, reading=Reading(**self.reading), needs_test=True,
            options=Options(**self.options, results_dir=self.results_dir), command=self.command,
        )  # fmt: skip

    def record(self) -> dict:
        """What is known of the cell before it runs, as config.json has it."""
        return self.cell.as_record() | {
            "backbone": self.config.backbone,
            "weights": {"source": "random"} if self.weights == "random" else None,
        }

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Task":
        """The task of a line of `to_json`."""
        return cls(**json.loads(line))


def check_same(task: Task) -> None:
    """Raises UserError where the run directory of a task holds another run than the task's."""
    keys = ("method", "config", "dataset", "category", "seed", "tile", "overlap")
    stored = identity.check_same(task.run_dir, task.record(), task.config, keys)
    if stored:
        different = _other_weights(stored.get("weights") or {}, task.weights)
        identity.refuse_other(task.run_dir, different)


def check_files(task: Task) -> None:
    """Raises UserError where making a task would meet somebody else's files."""
    check_directory(task.run_dir, RUN)
    if task.result_file:
        refuse_foreign(task.result_file, "--results_dir: ", is_result)


def complete(task: Task) -> None:
    """Writes what a finished cell lacks: the report, where a run was killed before it was written,
    and the small result file, where it is asked for only now.

    Raises:
      UserError: a file of somebody else's is in its place, or one of the cell is damaged.
    """
    top = task.run_dir
    if (top / "predictions.npz").is_file() and not (top / "report.html").exists():
        write_report(top)
    if task.result_file and not task.result_file.exists():
        read = {name: _read(top / f"{name}.json") for name in _STORED}
        write_result(task.results_dir, read.pop("config") | read)


def _read(path: Path) -> dict:
    try:
        return sealed.read(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}") from None


def _other_weights(stored: Mapping, wanted: str | None) -> str:
    """What differs, in words. Only files are compared: the same weights have several names."""
    source, digest = stored.get("source"), stored.get("sha256")
    if not source or not wanted:
        return ""
    same = (source == "random") == (wanted == "random")
    if same and digest and Path(wanted).expanduser().is_file():
        same = digest == _sha256(wanted)
    return "" if same else f"weights {source} there, {wanted} now"


@functools.cache
def _sha256(path: str) -> str:
    with open(Path(path).expanduser(), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_failed(task: Task, error: str, traceback: str | None = None) -> None:
    """Writes the error of a cell into its run directory; where it cannot, it says so."""
    try:
        write_json(task.run_dir / ERROR, task.record() | {"error": error, "traceback": traceback})
    except NotWritten as reason:
        warn_once(str(task.run_dir), f"{task.name} failed ({error}), and {reason.text}")
