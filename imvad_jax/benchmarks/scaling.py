"""How cost grows with the number of images, the size of the bank, and the number of devices.

Every point is measured in a process of its own (`scaling_point.py`); this one computes nothing.
"""

import dataclasses
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from imvad_jax import leaving, methods
from imvad_jax.benchmarks import scaling_report as tables
from imvad_jax.benchmarks.measure import OtherLoad
from imvad_jax.benchmarks.report import BUSY
from imvad_jax.benchmarks.scaling_point import AXES, Request
from imvad_jax.commands import process
from imvad_jax.errors import UserError, say
from imvad_jax.owned import BENCHMARK, check_directory, write_own
from imvad_jax.progress import silent_progress
from imvad_jax.reporting.plots import figure_png
from imvad_jax.runs.record import write_json

MACHINE = ("versions", "commit", "hardware", "platform")  # of a point, the same for all


def sizes(given: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """The values of every axis, ascending. Raises UserError for what is no number from 1 on."""
    found = {}
    for axis, texts in given.items():
        if not all(text.strip().isdecimal() and int(text) for text in texts):
            raise UserError(
                f"--scaling_{axis}={','.join(texts)}: expected whole numbers from 1 on, separated "
                "by commas"
            )
        found[axis] = sorted({int(text) for text in texts})
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """What is measured of one method."""

    template: Request  # its axis and value are replaced
    config: methods.DetectorConfig
    num_devices: int = 0  # of every axis but `devices`; 0: all

    def requests(self, values: dict[str, list[int]]) -> list[Request]:
        """The points, those that this method has."""
        detector = methods.make(self.template.method, self.config)
        return [
            dataclasses.replace(self.template, axis=axis, value=value)
            for axis, (_, applies) in AXES.items()
            if applies(detector)
            for value in values[axis]
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """What is measured of all methods, and where it is written."""

    scales: list[Scale]
    values: dict[str, list[int]]  # of every axis, as `sizes` gives them
    workdir: Path
    command: str = ""  # for the records


def run_point(request: Request, num_devices: int) -> dict:
    """The figures of a point, or `{value, error}`."""
    command = process("scaling_point", f"--num_devices={num_devices}")
    asked = json.dumps(dataclasses.asdict(request))
    done = leaving.run(
        command, asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace",
    )  # fmt: skip
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        reason = f"ended by signal {-done.returncode}; out of memory?"
    else:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].removeprefix("error: ") if lines else f"status {done.returncode}"
    return {"value": request.value, "error": reason}


def measure(
    scale: Scale, values: dict[str, list[int]], command: str, log=say, done=lambda count: None
) -> dict:
    """The record of one method: what it is, the machine, and a list of points an axis."""
    others, asked = OtherLoad(), scale.template
    record = {
        "method": asked.method,
        "preset": asked.preset,
        "overrides": asked.overrides,
        "config": dataclasses.asdict(scale.config),
        "seed": asked.seed,
        "command": command,
    }
    points: dict[str, list[dict]] = {}
    for request in scale.requests(values):
        count = request.value if request.axis == "devices" else scale.num_devices
        found = run_point(request, count)
        machine = {key: found.pop(key) for key in MACHINE if key in found}
        record = machine | record
        points.setdefault(request.axis, []).append(found)
        log(f"{request.method}, {tables.describe(request.axis, found)}")
        done(1)
    return record | {"points": points, "others_share": others.share()}


def write(workdir: Path, command: str, records: list[dict]) -> None:
    """Writes scaling.json and scaling.png of what was measured until now."""
    write_json(workdir / "scaling.json", {"command": command, "records": [], "scaling": records})
    if any(tables.measured(record) for record in records):
        png = figure_png(tables.figure(records))
        write_own(workdir / "scaling.png", lambda file: file.write(png))


@dataclasses.dataclass(frozen=True)
class Measured:
    """What came of it: in words, as a JSON document, and whether any point failed."""

    text: str
    document: dict
    failed: bool


def run(asked: Scaling, log=say, progress=silent_progress) -> Measured:
    """Measures the methods and writes after each.

    Raises:
      UserError: there is nothing to measure, or somebody else's files lie in its directory.
    """
    workdir = asked.workdir
    check_directory(workdir, BENCHMARK)
    total = sum(len(scale.requests(asked.values)) for scale in asked.scales)
    if not total:
        raise UserError(
            "--scaling: nothing to measure; name some of --scaling_images (methods without "
            "training), --scaling_bank (patchcore) and --scaling_devices"
        )
    done, records = progress(total, "scaling"), []
    for scale in asked.scales:
        records.append(measure(scale, asked.values, asked.command, log, done))
        write(workdir, asked.command, records)
    for record in records:
        if (record["others_share"] or 0) > BUSY:
            log(
                f"note: other processes used {record['others_share']:.0%} of the machine while "
                f"{record['method']} was measured; these figures are not for publication"
            )
    return Measured(
        f"{tables.format_tables(records)}\nwritten to {workdir}: scaling.json, scaling.png",
        {"workdir": str(workdir), "command": asked.command, "scaling": records},
        any("error" in p for r in records for a in r["points"].values() for p in a),
    )
