"""The benchmark of several methods, one process per method, and its files."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax

from imvad_jax import leaving, methods
from imvad_jax.benchmarks import measure_method, report, workloads
from imvad_jax.benchmarks.comparisons import Comparisons
from imvad_jax.benchmarks.images import Source
from imvad_jax.errors import UserError, say
from imvad_jax.methods.base import Progress
from imvad_jax.model.make import assemble
from imvad_jax.owned import BENCHMARK, check_directory, write_own
from imvad_jax.progress import silent_progress
from imvad_jax.reporting.plots import figure_png
from imvad_jax.reporting.result_files import folder_name
from imvad_jax.runs.record import write_json
from imvad_jax.training.limit import LIMIT_STATUS, SIGNAL_STATUS, Limit, Stopped, limited
from imvad_jax.training.parallel import Parallel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is measured of which methods, and where it is written."""

    workdir: Path
    methods: Mapping[str, tuple[methods.DetectorConfig, dict[str, str]]]  # with their overrides
    preset: str = "official"
    weights: str = "random"
    seed: int = 0
    source: Source = dataclasses.field(default_factory=Source)
    options: workloads.Options = dataclasses.field(default_factory=workloads.Options)
    comparisons: Comparisons = dataclasses.field(default_factory=Comparisons)
    compiled_cache: bool = False  # whether compiled programs are taken from the cache
    command: str = ""  # for the records


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measuring:
    """How it is measured.

    `apart` gives the command line of a process that measures one method alone, of its name, the
    directory that it writes to, and the seconds that are left for it.
    """

    start: Callable[[], Parallel]  # sets JAX up in this process
    apart: Callable[[str, Path, float], list[str]]
    limit: Limit = dataclasses.field(default_factory=Limit)
    log: Callable[[str], object] = say
    progress: Progress = silent_progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What came of it."""

    records: list[dict]  # one for each method; `{method, error}` of one that failed
    stopped: Stopped | None = None  # why methods are missing, where the time was over

    @property
    def failed(self) -> bool:
        """Whether any method failed."""
        return any("error" in record for record in self.records)


def check_directories(workdir: Path, names: Iterable[str]) -> None:
    """Raises UserError where somebody else's files lie in a directory that is written to."""
    names = list(names)
    own = [workdir / folder_name(name) for name in names if len(names) > 1]
    for directory in (workdir, *own):
        check_directory(directory, BENCHMARK)


def measure_methods(request: Request, how: Measuring) -> Measured:
    """Measures the methods, one in this process or several in processes of their own.

    benchmark.json and benchmark.png are written after each.

    Raises:
      UserError: bad input; of several methods, such a one is marked in the records instead.
    """
    check_directories(request.workdir, request.methods)
    request.comparisons.check(request.methods)  # says now what is missing
    _make_profile_directory(request.options.profile)
    # The next method is expected to take as long as the slowest so far.
    seconds, stopped, records = 0.0, None, []
    for number, name in enumerate(request.methods, 1):
        start = how.limit.clock()
        try:
            how.limit.require(seconds, f"{name}: a method")
            if len(request.methods) == 1:
                how.log(f"== {methods.get(name).title}")
                records.append(measure_here(name, request, how))
                if "left" in records[0]:
                    stopped = how.limit.stop(f"{name}: {records[0]['left']}")
            else:
                how.log(f"method {number} of {len(request.methods)}")
                records.append(measure_apart(name, request, how))
        except Stopped as stop:
            stopped = stop
            break
        seconds = max(seconds, how.limit.clock() - start)
        write(request, records)
    return Measured(records=records, stopped=stopped)


def measure_here(name: str, request: Request, how: Measuring) -> dict:
    """Measures one method in this process; returns its record. Raises UserError, Stopped."""
    parallel = how.start()
    if not request.compiled_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    config, overrides = request.methods[name]
    model = assemble(
        name, config, request.weights, request.seed, preset=request.preset, overrides=overrides,
        parallel=parallel,
    )  # fmt: skip
    record = measure_method.benchmark(
        model, request.source.open(config), request.options,
        comparisons=request.comparisons.of(model, how.log, how.progress),
        command=request.command, log=how.log, progress=limited(how.progress, how.limit),
        limit=how.limit,
    )  # fmt: skip
    return record | {
        "images_from": request.source.name,
        "compiled_cache": request.compiled_cache,
    }


def measure_apart(name: str, request: Request, how: Measuring) -> dict:
    """Measures one method in a process of its own, whose peak memory is then that method's alone.

    Returns its record, or `{method, error}`.

    Raises:
      Stopped: there was no time left for it.
    """
    own, limit = request.workdir / folder_name(name), how.limit
    (own / "benchmark.json").unlink(missing_ok=True)
    command, last = how.apart(name, own, limit.left), ""
    environment = {**os.environ, leaving.CHILD: "1"}
    with leaving.child(
        command, stdout=2, stderr=subprocess.PIPE, text=True, errors="replace", env=environment
    ) as child:
        limit.on_end(child.terminate)
        assert child.stderr  # a pipe
        for line in child.stderr:
            sys.stderr.write(line)
            last = line.strip() or last
    if child.returncode in (LIMIT_STATUS, SIGNAL_STATUS):
        raise limit.stop(f"{name}: {last}")
    if child.returncode < 0:
        return {"method": name, "error": f"ended by signal {-child.returncode}; out of memory?"}
    if child.returncode:
        return {"method": name, "error": last.removeprefix("error: ")}
    record = report.read_benchmark(own / "benchmark.json")["records"][0]
    return record | {"command": request.command}


def write(request: Request, records: list[dict]) -> None:
    """Writes benchmark.json and benchmark.png of what was measured until now."""
    found = {"command": request.command, "records": records}
    write_json(request.workdir / "benchmark.json", found)
    if any("error" not in record for record in records):
        png = figure_png(report.rate_figure(records))
        write_own(request.workdir / "benchmark.png", lambda file: file.write(png))


def _make_profile_directory(directory: Path | None) -> None:
    """Raises UserError where --profile names no directory that can be written to."""
    try:
        if directory:
            directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--profile={directory}: {error.strerror}") from None
