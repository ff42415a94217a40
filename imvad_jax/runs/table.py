"""Runs the cells of a table, here or in worker processes, and writes the table."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from imvad_jax.errors import say
from imvad_jax.owned import TABLE, check_directory, write_own
from imvad_jax.reporting.grid import Cell, Grid, load_grid
from imvad_jax.reporting.grid_page import write_grid_page
from imvad_jax.reporting.grid_text import as_json, markdown, tidy_csv
from imvad_jax.runs import tasks, worker_pool
from imvad_jax.runs.display import Display
from imvad_jax.runs.make_task import make_task
from imvad_jax.runs.plan import deal
from imvad_jax.runs.specs import Work
from imvad_jax.runs.tasks import Task
from imvad_jax.runs.workers import worker_environments
from imvad_jax.training.limit import Limit, Stopped
from imvad_jax.training.parallel import Parallel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Making:
    """How the cells of a table are made."""

    start: Callable[[], Parallel]  # sets JAX up in this process, where cells are made here
    worker: Sequence[str] = ()  # command line of a worker process; empty: cells are made here
    processes: int = 0  # of workers; 0: one for each accelerator, or one
    num_devices: int = 0  # that each worker uses; 0: all that it sees
    shard: str = ""  # `i/n`: the i-th of n parts of the cells; empty: all
    compare: bool = False  # adds published figures to the files
    limit: Limit = dataclasses.field(default_factory=Limit)
    log: Callable[[str], object] = say


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What came of it."""

    grid: Grid  # of all cells, those of other shards among them
    failed: list[Cell]  # of this shard
    stopped: list[Task]  # for which there was no time; the same call goes on


def make_table(planned: Sequence[Task], how: Making) -> Made:
    """Makes the cells that are not finished and writes the table after each.

    Args:
      planned: All cells of the table, as `plan` gives them.
      how: Which of them are made, by whom, and within which time.

    Raises:
      UserError: the work directory holds other runs or somebody else's files, or no worker starts.
    """
    mine = deal(planned, how.shard) if how.shard else list(planned)
    waiting = _check(planned, mine)
    where = f" of shard {how.shard}" if how.shard else ""
    how.log(f"{len(mine)} cells{where}: {len(mine) - len(waiting)} finished, {len(waiting)} to run "
            f"(preset {planned[0].preset})")  # fmt: skip
    if any(not task.options.get("save_predictions", True) for task in waiting):
        how.log("note: without predictions the runs have no reports to link to")
    apart = bool(how.worker)
    environments = (
        worker_environments(how.processes, how.num_devices) if waiting and apart else [{}]
    )
    logs = _logs(planned, how.shard, len(environments))
    display = Display(waiting, len(environments), logs if apart else [])
    for task in mine:
        if task.finished and (seconds := task.seconds):
            display.left.add(task.method, seconds)
    try:
        if waiting and apart:
            how.log(f"log: {', '.join(map(str, logs))}")
            pool = worker_pool.Pool(how.worker, environments, logs)
            _make_apart(planned, waiting, display, pool, how)
        elif waiting:
            _make_here(planned, waiting, display, how)
    finally:
        display.close()
    grid, paths = write_table(planned, how.compare), {task.path for task in mine}
    failed = [cell for cell in grid.in_state("failed") if cell.path in paths]
    return Made(grid=grid, failed=failed, stopped=display.stopped)


def write_table(planned: Sequence[Task], compare: bool = False) -> Grid:
    """Writes the files of the table from what the work directory holds.

    Args:
      planned: All cells of the table.
      compare: Whether published figures and differences are added.
    """
    top = Path(planned[0].workdir)
    grid = load_grid(top, [(task.path, task.record()) for task in planned])
    texts = {
        "table.md": markdown(grid, compare),
        "table.csv": tidy_csv(grid, compare),
        "table.json": as_json(grid),
    }
    for name, text in texts.items():
        write_own(top / name, lambda file, text=text: file.write(text.encode()))
    write_grid_page(top / "table.html", grid, compare)
    return grid


def _check(planned: Sequence[Task], mine: Sequence[Task]) -> list[Task]:
    """The cells that are to be made; completes the finished ones. Raises UserError."""
    workdir = planned[0].workdir
    check_directory(workdir, TABLE)
    for task in mine:
        tasks.check_same(task)
    load_grid(workdir)  # what is damaged there is better said now
    waiting = [task for task in mine if not task.finished]
    for task in mine:
        tasks.complete(task) if task.finished else tasks.check_files(task)
    return waiting


def _logs(planned: Sequence[Task], shard: str, count: int) -> list[Path]:
    label = f"shard{shard.replace('/', 'of')}-" if shard else ""
    top = Path(planned[0].workdir, "logs")
    return [top / f"{label}worker{number}.log" for number in range(count)]


def _make_here(
    planned: Sequence[Task], waiting: Sequence[Task], display: Display, how: Making
) -> None:
    """Makes the cells in this process."""
    parallel = how.start()
    for task in waiting:
        if reason := display.refuse(task, how.limit):
            display.stop(task, reason)
            continue
        display.begin(task)
        start = time.perf_counter()
        try:
            error = make_task(task, Work(parallel=parallel, limit=how.limit))
        except Stopped as stopped:
            display.stop(task, str(stopped))
            continue
        display.end(task, time.perf_counter() - start, error)
        write_table(planned, how.compare)


def _make_apart(
    planned: Sequence[Task], waiting: Sequence[Task], display: Display, pool: worker_pool.Pool,
    how: Making,
) -> None:  # fmt: skip
    """Makes the cells in worker processes."""
    limit = how.limit
    limit.on_end(pool.end_soon)

    def on_event(event: worker_pool.Event | None) -> None:
        if event is None:
            display.tick()
            if limit.left <= 0 or limit.ended_by_signal:  # one that was starting
                pool.end_soon()
        elif event.stopped:
            display.stop(event.task, event.stopped)
        elif event.seconds is None:
            display.begin(event.task)
        else:
            display.end(event.task, event.seconds, event.error)
            write_table(planned, how.compare)

    pool.run(waiting, on_event, limit, lambda task: display.refuse(task, limit))
