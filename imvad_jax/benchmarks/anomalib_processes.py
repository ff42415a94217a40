"""Runs our program and anomalib's, each as a process that is measured as a whole.

anomalib has its own environment, whose interpreter runs `anomalib_driver.py`. Ours runs `imvad
run`, with its decoded images deleted beforehand (cold) or kept (warm). Neither side writes images
or predictions.
"""

import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from imvad_jax import leaving, sealed
from imvad_jax.commands import process
from imvad_jax.errors import UserError
from imvad_jax.methods.base import TrainedConfig
from imvad_jax.training.gradient import epoch_steps
from imvad_jax.training.record import config_of

HERE = Path(__file__).resolve().parent
INSTALL = (
    "python -m venv E; E/bin/pip install anomalib==2.7.0 torch==2.14.1 torchvision==0.29.1; "
    "--anomalib_python=E/bin/python"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is compared."""

    python: str  # of an environment with anomalib
    method: str
    preset: str
    overrides: Mapping[str, str]
    data_dir: str
    category: str
    weights: str
    seed: int
    device_flags: tuple[str, ...]  # for imvad run: devices, but for the cache
    workdir: Path
    repeats: int


@functools.cache
def find_anomalib(python: str | None) -> dict[str, str]:
    """Versions of anomalib and what it stands on. Raises UserError where it cannot be imported."""
    if not python:
        raise UserError(
            "--anomalib_python is missing: name the python of an environment that has anomalib. "
            f"{INSTALL}"
        )
    try:
        done = subprocess.run(
            [python, str(HERE / "anomalib_driver.py"), "--versions"], env=environment(),
            capture_output=True, text=True, errors="replace",
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"--anomalib_python={python}: cannot be run ({error.strerror})") from None
    if done.returncode:
        raise UserError(
            f"--anomalib_python={python}: {last_line(done.stderr)}. Expected the python of an "
            f"environment that has anomalib. {INSTALL}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """Variables for anomalib's interpreter: neither our modules nor our folder are on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PYTHONSAFEPATH": "1"}


def last_line(text: str) -> str:
    """The last line that is not empty, without a leading `error: `."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


class Programs:
    """Runs either program once, as a process of its own.

    `arguments` are the driver's. With `epochs` the runs are trainings of so many, and hold what
    `epoch_figures` gives, too.
    """

    def __init__(self, request: Request, arguments: list[str], epochs: int = 0):
        self.request, self.arguments, self.epochs = request, arguments, epochs
        request.workdir.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="processes-", dir=request.workdir))
        self.cache = self.directory / "cache"
        self.others: dict = {}  # what the driver says besides seconds and metrics

    def ours(self, cold: bool = False) -> dict:
        """`{decode_s, fit_s, ..., process_s, peak_bytes, metrics}` of imvad run."""
        request, run = self.request, self.directory / "run"
        shutil.rmtree(run, ignore_errors=True)  # or it would be evaluated without fitting
        if cold:
            shutil.rmtree(self.cache / "decoded", ignore_errors=True)
        command = [
            *process("run"), f"--method={request.method}", f"--preset={request.preset}",
            f"--data_dir={request.data_dir}", f"--category={request.category}",
            f"--weights={request.weights}", f"--seed={request.seed}",
            f"--cache_dir={self.cache}", f"--workdir={run}",
            "--holdout=0", "--save_heatmaps=false", "--save_predictions=false",
            *(f"--{key}={value}" for key, value in request.overrides.items()),
            *request.device_flags,
        ]  # fmt: skip
        if self.epochs:  # saved at the end alone; anomalib saves nothing
            command.append(f"--checkpoint_every={self.epochs}")
        used = self._run(command, dict(os.environ))
        timings = json.loads((run / "timings.json").read_text())
        metrics = sealed.read(run / "metrics.json")
        if self.epochs:
            used |= epoch_figures(*read_epochs(run))
        shutil.rmtree(run)
        stages = ("decode", "fit", "score", "metrics", "compile")
        return used | {f"{s}_s": timings[s]["wall_s"] for s in stages} | {"metrics": metrics}

    def theirs(self) -> dict:
        """`{fit_s, validate_s, test_s, ..., process_s, peak_bytes, metrics}` of the driver."""
        scratch, out = self.directory / "scratch", self.directory / "driver.json"
        out.unlink(missing_ok=True)
        command = [
            self.request.python, str(HERE / "anomalib_driver.py"), *self.arguments,
            f"--scratch={scratch}", f"--out={out}",
        ]  # fmt: skip
        used = self._run(command, environment())
        found = json.loads(out.read_text())
        shutil.rmtree(scratch, ignore_errors=True)
        self.others = {key: found[key] for key in ("versions", "threads", "images")}
        if self.epochs:
            used |= epoch_figures(found["epoch_s"], found["steps"])
        return used | found["seconds"] | {"metrics": found["metrics"]}

    def _run(self, command: list[str], variables: dict[str, str]) -> dict:
        out, log = self.directory / "process.json", self.directory / "process.log"
        out.unlink(missing_ok=True)
        start = [sys.executable, str(HERE / "whole_process.py"), str(out), *command]
        with log.open("w") as file:
            status = leaving.run(
                start, kill=leaving.kill_group, env=variables, stdout=file, stderr=file,
                start_new_session=True,
            ).returncode  # fmt: skip
        if status:
            reason = last_line(log.read_text(errors="replace"))
            program = shlex.join(command[:3])
            raise UserError(
                f"--compare=anomalib: {program} ended with status {status}: {reason} (see {log})"
            )
        used = json.loads(out.read_text())
        return {"process_s": used["wall_s"]} | {key: used[key] for key in ("cpu_s", "peak_bytes")}


def read_epochs(run: Path) -> tuple[list[float], int]:
    """Seconds of each epoch of a training in a run directory of ours, and the steps of an epoch."""
    record = sealed.read(run / "config.json")
    config = config_of(record)
    assert isinstance(config, TrainedConfig)  # else there is no history
    steps = epoch_steps(len(record["train_files"]), config)
    images = steps * config.batch_size  # which its rates are of
    rows = sealed.read(run / "history.json")
    return [images / row["images_per_s"] for row in rows], steps


def epoch_figures(seconds: Sequence[float], steps: int) -> dict[str, float]:
    """`{first_epoch_s, epoch_s, step_s, steps}` of a training.

    Args:
      seconds: Of each epoch, two at least. The first one counts from the start of the fit: it holds
        what is compiled, and what is computed before the first step.
      steps: Of an epoch. `epoch_s` and `step_s` are means of the epochs after the first.
    """
    first, *later = seconds
    epoch = sum(later) / len(later)
    return {"first_epoch_s": first, "epoch_s": epoch, "step_s": epoch / steps, "steps": steps}
