"""Traces of some steps by jax.profiler, and the operations that took longest.

A trace is a folder that `xprof --logdir=DIR` shows; its `*.trace.json.gz` opens in a browser at
ui.perfetto.dev.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from imvad_jax.benchmarks import workloads
from imvad_jax.benchmarks.columns import number
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.errors import say
from imvad_jax.reporting.text_table import format_rows
from imvad_jax.training.fit import fit
from imvad_jax.training.score import score

LARGEST = 10  # operations that are named
BATCHES = 3  # that are scored, and steps that are trained
PARTS = 3  # of a name within the program, from its end
# They hold others, which count for themselves.
CONTROL = re.compile(r"(while|conditional|call)(\.\d+)*$")
# An instruction of a compiled program, and what it was made from.
INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = .*op_name="([^"]+)"', re.MULTILINE)


class Event(NamedTuple):
    """An operation of a compiled program as it ran on one thread or stream."""

    start: float  # nanoseconds
    end: float
    name: str
    program: str
    number: str  # of the program, as several may have one name


class Operation(NamedTuple):
    """All runs of an operation."""

    name: str
    program: str
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    seconds: float  # of all devices together
    source: str  # the layers and the function it was compiled from, where that is known


def read_events(path: Path) -> list[list[Event]]:
    """The operations in an `.xplane.pb`, a list a thread or stream."""
    found = []
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        lines = list(plane.lines)
        # Where operations have a line of their own, others repeat them.
        lines = [line for line in lines if line.name == "XLA Ops"] or lines
        for line in lines:
            events = []
            for event in line.events:
                stats = dict(event.stats)
                if "hlo_op" in stats:
                    begin, name = event.start_ns, str(stats["hlo_op"])
                    program = str(stats.get("hlo_module", "")), str(stats.get("program_id", ""))
                    events.append(Event(begin, begin + event.duration_ns, name, *program))
            if events:
                found.append(events)
    return found


def own_times(
    lines: Iterable[list[Event]], programs: Sequence[tuple[str, dict[str, str]]] = ()
) -> list[Operation]:
    """The time of each operation without that of those within it, the longest first.

    Control flow is left out: it only waits for what it runs. What joins devices counts with their
    waiting for each other. `programs` are those of `sources`.
    """
    seconds, counts = defaultdict(float), defaultdict(int)
    for events in lines:
        around: list[Event] = []
        for event in sorted(events, key=lambda event: (event.start, -event.end)):
            while around and around[-1].end <= event.start:
                around.pop()
            length = event.end - event.start
            if around:
                seconds[around[-1][2:]] -= length
            seconds[event[2:]] += length
            counts[event[2:]] += 1
            around.append(event)
    seen = defaultdict(set)
    for name, *program in seconds:
        seen[tuple(program)].add(name)
    fitting = {
        program: [made for title, made in programs if title == program[0] and names <= made.keys()]
        for program, names in seen.items()
    }
    found = []
    for (name, *program), time in seconds.items():
        if CONTROL.match(name):
            continue
        made_from = {made[name] for made in fitting[tuple(program)]}
        source = made_from.pop() if len(made_from) == 1 else ""  # several: which one is unknown
        runs = counts[name, *program]
        found.append(Operation(name, program[0], runs, time / 1e9, source))
    return sorted(found, key=lambda operation: -operation.seconds)


def sources() -> list[tuple[str, dict[str, str]]]:
    """The programs that this process holds: their names, and what each instruction was made from.

    Empty where this JAX does not give them.
    """
    client = getattr(jax.local_devices()[0], "client", None)
    executables = getattr(client, "live_executables", list)()
    found = []
    for executable in executables:
        for module in executable.hlo_modules():
            text = module.to_string()
            made = dict.fromkeys(re.findall(r"^\s*(?:ROOT )?%?([\w.-]+) = ", text, re.M), "")
            for name, path in INSTRUCTION.findall(text):
                made[name] = "/".join(path.split("/")[-PARTS:])
            found.append((module.name, made))
    return found


def trace(call: Callable[[], object], directory: Path) -> dict:
    """Traces one call, after one that is not: `{directory, seconds, operations}`.

    `seconds` are those of all operations on all devices; `operations` the largest, with their
    `share` of these.
    """
    call()
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's own calls would fill the trace
    with jax.profiler.trace(directory, profiler_options=options):
        call()
    paths = directory.glob("plugins/profile/*/*.xplane.pb")
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    found = own_times(read_events(newest), sources())
    total = sum(operation.seconds for operation in found)
    return {
        "directory": str(directory),
        "seconds": total,
        "operations": [o._asdict() | {"share": o.seconds / total} for o in found[:LARGEST]],
    }


def format_trace(name: str, found: dict) -> str:
    """The largest operations as a table."""
    rows = [
        [
            o["name"], o["program"], o["source"] or "-", str(o["count"]),
            number(1e3 * o["seconds"]), f"{o['share']:.1%}",
        ]
        for o in found["operations"]
    ]  # fmt: skip
    heading = f"{name}: {number(found['seconds'])} s in operations of all devices; trace in "
    head = ("operation", "program", "made from", "runs", "ms", "share")
    return heading + found["directory"] + "\n" + format_rows(head, rows, left=3)


def calls(unfitted: Subject, fitted: Subject) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is traced: some training steps where there are any, the whole fit, some scored batches
    from images to maps in host memory."""
    detector, parallel = fitted.detector, fitted.parallel
    if "gradient" in detector.phases:
        started = dataclasses.replace(unfitted, variables=workloads.before_training(unfitted))
        _, steps = workloads.training_call(started, detector.config.cache_features)
        yield "training", lambda: steps(BATCHES)
    start, images = unfitted.variables, unfitted.images
    yield "fit", lambda: fit(detector, start, images, parallel, unfitted.seed)
    size = fitted.batch_size
    some = images.take(range(min(BATCHES * size, len(images))))
    yield "scoring", lambda: score(detector, fitted.variables, some, parallel, size)


def profile(
    unfitted: Subject, fitted: Subject, directory: Path, log: Callable[[str], object] = say
) -> dict[str, dict]:
    """Traces below `directory` what `calls` names and says which operations took longest."""
    found = {}
    for name, call in calls(unfitted, fitted):
        log(f"tracing the {name} ...")
        found[name] = trace(call, directory / name)
        log(format_trace(name, found[name]))
    return found
