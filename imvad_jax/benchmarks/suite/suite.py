"""Runs the unfinished steps of the suite and stores their output."""

import dataclasses
import hashlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from imvad_jax import backbones
from imvad_jax.backbones.tensor_files import open_tensors
from imvad_jax.benchmarks.suite import collect, parcel, plan, processes
from imvad_jax.benchmarks.suite.files import STATE, SUMMARY, read_json, write_archive, write_json
from imvad_jax.benchmarks.suite.summary import MOST_LINES, summarize
from imvad_jax.errors import UserError, say
from imvad_jax.marks import MARK
from imvad_jax.owned import SUITE, check_directory, write_own
from imvad_jax.training.limit import Limit

FINISHED = ("done", "left out")
MOST_OF_ONE = 40.0  # seconds that one of several methods to be timed may take, or half of the rest


@dataclasses.dataclass
class Suite:
    """What is to be done, and how far it is.

    `states` has `{part, state, why, tries, seconds}` by the name of a step; `state` is `done`,
    `left`, `failed` or `left out`.
    """

    out: Path
    steps: Sequence[plan.Step]
    identity: dict
    command: str
    states: dict[str, dict] = dataclasses.field(default_factory=dict)

    def state_of(self, step: plan.Step) -> dict:
        """How far a step is."""
        return self.states.get(step.name, {"part": step.part, "state": "left", "why": "not begun",
                                           "tries": 0, "seconds": 0.0})  # fmt: skip

    def waiting(self) -> list[plan.Step]:
        """The steps that are not finished, in order; of part c those tried least come first."""
        found = [s for s in self.steps if self.state_of(s)["state"] not in FINISHED]
        order = list(plan.PARTS)

        def key(step):
            tries = self.state_of(step)["tries"] if step.part == "c" else 0
            return order.index(step.part), tries

        return sorted(found, key=key)

    def note(self, step: plan.Step, **changes) -> None:
        """Keeps how far a step is."""
        self.states[step.name] = self.state_of(step) | changes
        self.save()

    def save(self) -> None:
        """Writes suite.json."""
        write_json(self.out / STATE, {"command": self.command, "identity": self.identity,
                                      "steps": self.states})  # fmt: skip


def open_suite(out: Path, steps: Sequence[plan.Step], identity: dict, command: str) -> Suite:
    """The suite in a directory, or a new one.

    Raises:
      UserError: the directory holds something else, or a suite of other data, weights or size.
    """
    check_directory(out, SUITE, "--out")
    stored = read_json(out / STATE) or {}
    for name, value in identity.items():
        before = stored.get("identity", {}).get(name, value)
        if before != value:
            raise UserError(
                f"--out={out}: holds a suite of another {name} ({before} there, {value} now); "
                "choose another directory"
            )
    suite = Suite(out, steps, identity, command, dict(stored.get("steps", {})))
    for step in steps:
        if step.left_out:
            suite.states[step.name] = suite.state_of(step) | {
                "state": "left out", "why": step.left_out
            }  # fmt: skip
        elif suite.state_of(step)["state"] == "left out":  # what was missing is there now
            del suite.states[step.name]
    return suite


def check_fits(suite: Suite, limit: Limit, given: str | None) -> None:
    """Raises UserError where the time is too short for anything."""
    waiting = suite.waiting()
    if waiting and limit.left < waiting[0].needs + plan.CLOSING:
        which = "next" if any(s["tries"] for s in suite.states.values()) else "first"
        needs = waiting[0].needs + plan.CLOSING
        raise UserError(f"--time_limit={given}: the {which} part needs about {needs:.0f} s")


def make(
    suite: Suite, limit: Limit, unpack: Callable[[], object] = lambda: None,
    log: Callable[[str], object] = say,
) -> bool:  # fmt: skip
    """Makes the steps in order, each within the time of its part, then once more what is left
    while there is time. Returns whether nothing is left.

    `unpack` is called once, before the first step that reads images.
    """
    unpacked = False
    start, whole = limit.clock(), limit.left
    ends = plan.ends(whole) if whole < float("inf") else {}
    suite.save()
    last = dict.fromkeys(plan.PARTS, whole - plan.CLOSING)
    for given in (ends, last):
        waiting = suite.waiting()
        for number, step in enumerate(waiting, 1):
            if given is last and suite.state_of(step)["state"] == "failed":
                continue
            if not unpacked and step.kind in ("table", "score", "loops"):
                unpack()
                unpacked = True
            left = given.get(step.part, float("inf")) - (limit.clock() - start)
            others = any(later.part == step.part for later in waiting[number:])
            # One of several methods that hangs leaves time for the others.
            if step.kind in ("benchmark", "loops") and others:
                left = min(left, max(left / 2, MOST_OF_ONE))
            attempt(suite, step, left, limit, log)
        if limit.ended_by_signal:
            break
    return not suite.waiting()


def attempt(suite: Suite, step: plan.Step, left: float, limit: Limit, log) -> None:
    """Makes one step, if it fits and has what it needs."""
    if limit.ended_by_signal or left < step.needs:
        if suite.state_of(step)["tries"] == 0:
            suite.note(step, why=f"not begun: {max(left, 0):.0f} s were left")
        return
    if step.requires and not step.requires.is_file():
        suite.note(step, why="not begun: what it needs is not finished")
        return
    log(f"{step.part} {step.name} ...")
    begin, log_file = limit.clock(), suite.out / "logs" / f"{step.name}.txt"
    seconds = None if left == float("inf") else left
    command = plan.full_command(step, seconds)
    status = processes.run(command, step.environment, log_file, left, limit)
    state, why = processes.outcome(status, log_file)
    try:
        collect.collect(step, suite.out, suite.command)
    except (UserError, OSError) as error:
        state, why = "failed", f"{why} {getattr(error, 'text', error)}".strip()
    took, before = limit.clock() - begin, suite.state_of(step)
    suite.note(step, state=state, why=why, tries=before["tries"] + 1,
               seconds=before["seconds"] + took)  # fmt: skip
    log(f"{step.part} {step.name}: {state} after {took:.0f} s{': ' + why if why else ''}")


def close(suite: Suite, seconds: float, given: float | None) -> list[str]:
    """Writes summary.txt and suite.zip; returns the lines of the summary."""
    lines = summarize(suite, seconds, given)[:MOST_LINES]
    text = "\n".join([f"# {MARK}", *lines, ""])
    write_own(suite.out / SUMMARY, lambda file: file.write(text.encode()))
    write_archive(suite.out)
    return lines


def check_weights(weights: str) -> str:
    """The sha256 of a file of weights. Raises UserError if it is not of the suite's backbone."""
    path = Path(weights)
    if not path.is_file():
        raise UserError(f"--weights={weights}: no such file")
    spec = backbones.get(plan.BACKBONE)
    try:
        with open_tensors(path) as tensors:
            spec.from_timm(tensors, plan.OUTPUTS, source=str(path))
    except UserError as error:
        raise UserError(f"--weights: expected those of {plan.BACKBONE}; {error.text}") from None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepare(
    data: str, weights: str, out: str, *, preset: str, parts: Sequence[str], command: str
) -> Suite:
    """Checks what is given; nothing is written.

    Raises:
      UserError: bad input; it is named.
    """
    scale = plan.SCALES[preset]
    parcels = parcel.find(data, "--data_cache", scale.geometries)
    found = {parcel.read_meta(path)["category"]: path for path in parcels}
    if missing := [name for name in plan.CATEGORIES if name not in found]:
        raise UserError(f"--data_cache={data}: no parcel of {', '.join(missing)} there")
    identity = {"preset": preset, "weights": check_weights(weights)}
    identity["data"] = ", ".join(parcel.read_meta(path)["files"] for path in parcels)
    top = Path(out)
    cache = top / "work" / "cache"
    torch = importlib.util.find_spec("torch") is not None
    inputs = plan.Inputs(cache, os.path.abspath(weights), top, torch)
    return open_suite(top, plan.steps(scale, inputs, parts), identity, command)


def unpack(suite: Suite, data: str) -> None:
    """Makes the decoded caches that runs read. Raises UserError for a damaged parcel."""
    for path in sorted(Path(data).glob("*" + parcel.SUFFIX)):
        parcel.unpack(path, suite.out / "work" / "cache" / "decoded")
