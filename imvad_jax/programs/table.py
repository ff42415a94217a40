"""Makes the whole table: every method on every category, beside the published figures.

    python -m experiments.table --methods=all --dataset=mvtec_ad --categories=all \\
        --data_dir=DIR --weights=hub --budget=cpu --workdir=DIR --compare

Cells that are finished are not run again: the same command goes on after a kill. Every field of a
method's configuration is a flag, too, and holds for the methods that have it. The table lies in
the work directory as table.html, table.md, table.csv and table.json. The status is 1 if a cell
failed.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tqdm import tqdm

from imvad_jax import methods, presets
from imvad_jax.data.category import check_tiled
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError
from imvad_jax.owned import TABLE, check_directory, write_own
from imvad_jax.programs import config_flags, devices, shared_flags, time_limit
from imvad_jax.programs.shared_flags import DATA_DIR, DATASET, RESULTS_DIR, WEIGHTS, WORKDIR
from imvad_jax.reporting.grid import Grid, load_grid, read_cell
from imvad_jax.reporting.grid_page import write_grid_page
from imvad_jax.reporting.grid_text import as_json, averages, markdown, tidy_csv
from imvad_jax.reporting.metric_names import format_value
from imvad_jax.runs import supervise, tasks
from imvad_jax.runs.tasks import Task
from imvad_jax.runs.time_left import TimeLeft, format_seconds
from imvad_jax.training.limit import Limit, Stopped

_METHODS = flags.DEFINE_list(
    "methods", "all", "Methods, separated by commas, or all; package.module:Class for those of a "
    "package of your own.",
)  # fmt: skip
_CATEGORIES = flags.DEFINE_list("categories", "all", "Categories, separated by commas, or all.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds, from 0 on.", lower_bound=1)
_BUDGET = flags.DEFINE_enum(
    "budget", "official", list(tasks.BUDGETS),
    "What a cell may cost, and so its preset: "
    + ", ".join(f"{name} ({preset})" if name != preset else name
                for name, preset in tasks.BUDGETS.items()) + ".",
)  # fmt: skip
_SHARD = flags.DEFINE_string(
    "shard", None, "i/n: run the i-th of n parts of the cells, i from 1. Give every host the same "
    "flags but this one, and a --workdir that all of them see.",
)  # fmt: skip
_COMPARE = flags.DEFINE_bool(
    "compare", False, "Add published rows and differences to the table's files."
)
_PROCESSES = flags.DEFINE_integer(
    "processes", 0, "Processes that make cells side by side; 0: one for each accelerator, or one.",
    lower_bound=0,
)  # fmt: skip
_ISOLATE = flags.DEFINE_bool(
    "isolate", True, "Make cells in a process of their own, so that one that is killed does not "
    "end the rest; its output goes to logs/ in the work directory. False: in this one.",
)  # fmt: skip
for module in (config_flags, shared_flags, devices, time_limit):
    flags.adopt_module_key_flags(module)  # --help shows them, too


def plan() -> list[Task]:
    """All cells that the flags name, method by method."""
    if not WORKDIR.value:
        raise UserError("--workdir is missing: name the directory that the table is made in")
    if flags.FLAGS.num_processes != 1:
        raise UserError("--num_processes: a table is spread over hosts by --shard=i/n")
    names, preset = tasks.choose_methods(_METHODS.value), tasks.BUDGETS[_BUDGET.value]
    given, weights = config_flags.config_overrides(), tasks.parse_weights(WEIGHTS.value)
    overrides = {name: tasks.overrides_for(name, preset, given) for name in names}
    if unused := set(given) - {field for fields in overrides.values() for field in fields}:
        raise UserError(f"--{min(unused)}: none of the methods {', '.join(names)} has it")
    categories = shared_flags.find_categories(_CATEGORIES.value)
    tiling = shared_flags.find_tiling()
    tiles = dataclasses.asdict(tiling) if tiling else {}
    reading = dataclasses.asdict(shared_flags.find_reading())
    options = {
        "save_predictions": shared_flags.SAVE_PREDICTIONS.value,
        "save_heatmaps": shared_flags.SAVE_HEATMAPS.value,
        "checkpoint_every": shared_flags.CHECKPOINT_EVERY.value,
    }
    planned = []
    for name in names:
        config = presets.resolve(name, preset, overrides[name])
        if tiling:
            try:
                check_tiled(DATA_DIR.value, Geometry.of(config))
            except UserError as error:
                raise UserError(f"{name}: {error.text}") from None
        cells = [
            Task(
                name, preset, overrides[name], category, seed, DATASET.value, DATA_DIR.value,
                None, WORKDIR.value, devices.decoded_dir(), RESULTS_DIR.value, options,
                **tiles, reading=reading,
            )
            for seed in range(_SEEDS.value)
            for category in categories
        ]  # fmt: skip
        try:
            source = tasks.weights_for(config, name, weights)
        except UserError:
            if not all(task.finished for task in cells):
                raise
            source = None  # nothing of it is to be run
        planned += [dataclasses.replace(task, weights=source) for task in cells]
    return planned


class Display:
    """Which cell is made, how many are done, how long the rest will take."""

    def __init__(self, waiting: Sequence[Task], workers: int, logs: Sequence[Path]):
        self._waiting = list(waiting)
        self._now: dict[str, Task] = {}
        self._logs = logs
        self.left = TimeLeft(workers)
        self._done, self._total = 0, len(waiting)
        self.stopped: list[Task] = []  # for which there was no time
        self._bar = None
        if sys.stderr.isatty():
            form = "{n_fmt}/{total_fmt} cells |{bar:20}| {elapsed}, {desc}"
            self._bar = tqdm(total=self._total, bar_format=form, dynamic_ncols=True)

    def begin(self, task: Task) -> None:
        """A cell is begun."""
        self._now[task.path] = task
        self.tick()

    def stop(self, task: Task, reason: str) -> None:
        """A cell is not finished, since there is no time left."""
        self._now.pop(task.path, None)
        self._waiting.remove(task)
        self.stopped.append(task)
        self._say(f"{task.name}: {reason}")

    def refuse(self, task: Task, limit: Limit) -> str | None:
        """Why a cell is not begun; None if it is. A training counts by its next epoch."""
        trained = "gradient" in methods.get(task.method).detector.phases
        known = None if trained else self.left.known(task.method)
        if limit.ended_by_signal or limit.left <= 0 or not limit.fits(known or 0):
            needs = f" and needs about {format_seconds(known)}" if known else ""
            return f"not begun{needs}; {format_seconds(max(limit.left, 0))} are left"
        return None

    def end(self, task: Task, seconds: float, error: str | None) -> None:
        """A cell is finished, or has failed."""
        self._now.pop(task.path, None)
        self._waiting.remove(task)
        self._done += 1
        self.left.add(task.method, seconds)
        found = f"FAILED: {error}" if error else self._figures(task)
        left = format_seconds(self._time_left())
        self._say(f"[{self._done}/{self._total}] {task.name}: {found}; {seconds:.0f} s; "
                  f"{left} left")  # fmt: skip
        if self._bar is not None:
            self._bar.update()
        self.tick()

    def tick(self) -> None:
        """Shows what the workers do."""
        if self._bar is None:
            return
        names = ", ".join(task.name for task in self._now.values())
        doing = supervise.last_lines(self._logs[0], 1) if len(self._logs) == 1 else ""
        left = format_seconds(self._time_left())
        self._bar.set_description_str(f"{left} left; {names} {doing}".strip())

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.set_description_str("")
            self._bar.close()

    def _time_left(self) -> float | None:
        return self.left.of([task.method for task in self._waiting])

    def _figures(self, task: Task) -> str:
        metrics = read_cell(task.workdir, task.path).metrics
        return f"image AUC {format_value(metrics.get('image_auroc'))}"

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, flush=True)


def write_table(planned: Sequence[Task]) -> Grid:
    """Writes the files of the table from what the work directory holds."""
    top = Path(WORKDIR.value)
    grid = load_grid(top, [(task.path, task.record()) for task in planned])
    compare = _COMPARE.value
    texts = {
        "table.md": markdown(grid, compare),
        "table.csv": tidy_csv(grid, compare),
        "table.json": as_json(grid),
    }
    for name, text in texts.items():
        write_own(top / name, lambda file, text=text: file.write(text.encode()))
    write_grid_page(top / "table.html", grid, compare)
    return grid


def make_here(waiting: Sequence[Task], display: Display, after, limit: Limit) -> None:
    """Makes the cells in this process."""
    from imvad_jax.runs.make_task import make_task
    from imvad_jax.runs.specs import Work

    parallel = devices.start_jax()
    for task in waiting:
        if reason := display.refuse(task, limit):
            display.stop(task, reason)
            continue
        display.begin(task)
        start = time.perf_counter()
        try:
            error = make_task(task, Work(parallel=parallel, limit=limit))
        except Stopped as stopped:
            display.stop(task, str(stopped))
            continue
        display.end(task, time.perf_counter() - start, error)
        after()


def worker_command() -> list[str]:
    """The command line of a worker process."""
    given = {"cache_dir": flags.FLAGS.cache_dir, "num_devices": flags.FLAGS.num_devices}
    chosen = [f"--{name}={value}" for name, value in given.items() if value is not None]
    return [sys.executable, "-m", "imvad_jax.programs.worker", *chosen]


def accelerators() -> tuple[str, int]:
    """Platform and number of the local devices. Asks another process: to ask is to occupy them."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", 1
    code = "import jax; d = jax.local_devices(); print('found', d[0].platform, len(d))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for line in done.stdout.splitlines():
        match line.split():
            case ["found", platform, count]:
                return platform, int(count)
    raise UserError(f"JAX finds no device: {' '.join(done.stderr.split())[-300:]}")


def worker_environments() -> list[dict[str, str]]:
    """The environment of each worker process."""
    if _PROCESSES.value == 1 or (flags.FLAGS.num_devices and not _PROCESSES.value):
        return [{}]
    platform, count = accelerators()
    if platform == "cpu":
        return [{}] * max(_PROCESSES.value, 1)
    if _PROCESSES.value > count:
        raise UserError(f"--processes={_PROCESSES.value}: there are {count} {platform} devices")
    return supervise.environments(platform, count)[: _PROCESSES.value or count]


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    limit = time_limit.start_limit()
    planned = plan()
    check_directory(WORKDIR.value, TABLE)
    mine = tasks.deal(planned, _SHARD.value) if _SHARD.value else planned
    for task in mine:
        tasks.check_same(task)
    load_grid(WORKDIR.value)  # what is damaged there is better said now
    waiting = [task for task in mine if not task.finished]
    for task in mine:
        tasks.complete(task) if task.finished else tasks.check_files(task)
    where = f" of shard {_SHARD.value}" if _SHARD.value else ""
    print(f"{len(mine)} cells{where}: {len(mine) - len(waiting)} finished, {len(waiting)} to run "
          f"(preset {tasks.BUDGETS[_BUDGET.value]})", flush=True)  # fmt: skip
    if waiting and not shared_flags.SAVE_PREDICTIONS.value:
        print("note: without predictions the runs have no reports to link to")
    environments = worker_environments() if waiting and _ISOLATE.value else [{}]
    label = f"shard{_SHARD.value.replace('/', 'of')}-" if _SHARD.value else ""
    logs = [Path(WORKDIR.value, "logs", f"{label}worker{number}.log")
            for number in range(len(environments))]  # fmt: skip
    display = Display(waiting, len(environments), logs if _ISOLATE.value else [])
    for task in mine:
        if task.finished and (seconds := task.seconds):
            display.left.add(task.method, seconds)
    try:
        if waiting and _ISOLATE.value:
            print(f"log: {', '.join(map(str, logs))}", flush=True)

            pool = supervise.Pool(worker_command(), environments, logs)
            limit.on_end(pool.end_soon)

            def on_event(event):
                if event is None:
                    display.tick()
                    if limit.left <= 0:
                        pool.end_soon()
                elif event.stopped:
                    display.stop(event.task, event.stopped)
                elif event.seconds is None:
                    display.begin(event.task)
                else:
                    display.end(event.task, event.seconds, event.error)
                    write_table(planned)

            pool.run(waiting, on_event, limit, lambda task: display.refuse(task, limit))
        elif waiting:
            make_here(waiting, display, lambda: write_table(planned), limit)
    except KeyboardInterrupt:
        display.close()
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    display.close()
    grid = write_table(planned)
    print(averages(grid))
    names = {task.path for task in mine}
    failed = [cell for cell in grid.in_state("failed") if cell.path in names]
    for cell in failed:
        print(f"failed: {cell.name}: {cell.error}", file=sys.stderr)
    print(f"written to {WORKDIR.value}: table.html, table.md, table.csv, table.json")
    if display.stopped:
        raise limit.stop(
            f"{len(display.stopped)} cells are not finished; the same command goes on"
        )
    return 1 if failed else 0
