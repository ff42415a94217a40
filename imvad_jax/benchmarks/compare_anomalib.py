"""anomalib and our program as whole processes on the same files, run in turn.

anomalib lives in an environment of its own; its interpreter runs `anomalib_driver.py`. Ours runs
`experiments.run`, with its decoded images deleted before (cold) and kept (warm). What both leave
out is the writing of pictures and predictions.
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
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from imvad_jax import sealed
from imvad_jax.benchmarks.measure import summary
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError
from imvad_jax.progress import silent_progress
from imvad_jax.training.job import as_float, in_flight

HERE = Path(__file__).resolve().parent
MODELS = {"PaDiM": "padim", "PatchCore": "patchcore"}  # by class of ours
INSTALL = (
    "python -m venv E; E/bin/pip install anomalib==2.7.0 torch==2.14.1 torchvision==0.29.1; "
    "--anomalib_python=E/bin/python"
)
FIRST, COLD, WARM, THEIRS = "ours, first call", "ours, cold", "ours, warm", "anomalib"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is compared."""

    python: str  # of an environment with anomalib
    method: str
    preset: str
    overrides: dict[str, str]
    data_dir: str
    category: str
    weights: str
    seed: int
    device_flags: tuple[str, ...]  # for experiments.run: devices, but for the cache
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


def check_weights(weights: str) -> None:
    """Raises UserError for weights that anomalib cannot be given."""
    if weights != "random" and Path(weights).suffix != ".safetensors":
        raise UserError(
            f"--compare=anomalib: --weights={weights} cannot be put into anomalib; expected a "
            ".safetensors file with timm's names, or random"
        )


def environment() -> dict[str, str]:
    """Variables for anomalib's interpreter: neither our modules nor our folder are on its path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return kept | {"PYTHONSAFEPATH": "1"}


def last_line(text: str) -> str:
    """The last line that is not empty, without a leading `error: `."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"


def driver_arguments(request: Request, detector, platform: str) -> list[str]:
    """What the driver is asked for: the same work. Raises UserError where there is no such."""
    name, config = MODELS.get(type(detector).__name__), detector.config
    if name is None:
        raise UserError(
            f"--compare=anomalib: {request.method} is not compared; padim and patchcore are"
        )
    if "resnet" not in config.backbone:
        raise UserError(
            f"--compare=anomalib: backbone {config.backbone}; layers of ResNets alone have the "
            "same names there"
        )
    if platform != "cpu":
        raise UserError("--compare=anomalib: JAX computes on an accelerator; the CPU is compared")
    found = {
        "model": name,
        "root": request.data_dir,
        "category": request.category,
        "image_size": config.image_size,
        "crop_size": config.crop_size,
        "batch_size": config.batch_size,
        "workers": os.cpu_count(),
        "backbone": config.backbone,
        "layers": ",".join(config.layers),
        "seed": request.seed,
    }
    if name == "padim":
        found["channels"] = detector.dim
    else:
        if config.num_neighbors != 1:
            raise UserError("--compare=anomalib: PatchCore with --num_neighbors=1 only")
        found["coreset_ratio"] = config.coreset_ratio
        found["neighbors"] = config.reweight_neighbors or 1
    if request.weights != "random":
        found["weights"] = request.weights
    return [f"--{key}={value}" for key, value in found.items()]


class Programs:
    """Runs either program once, as a process of its own."""

    def __init__(self, request: Request, arguments: list[str]):
        self.request, self.arguments = request, arguments
        request.workdir.mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="processes-", dir=request.workdir))
        self.cache = self.directory / "cache"
        self.others: dict = {}  # what the driver says besides seconds and metrics

    def ours(self, cold: bool = False) -> dict:
        """`{decode_s, fit_s, ..., process_s, peak_bytes, metrics}` of experiments.run."""
        request, run = self.request, self.directory / "run"
        shutil.rmtree(run, ignore_errors=True)  # or it would be evaluated without fitting
        if cold:
            shutil.rmtree(self.cache / "decoded", ignore_errors=True)
        command = [
            sys.executable, "-m", "experiments.run", f"--method={request.method}",
            f"--preset={request.preset}", f"--data_dir={request.data_dir}",
            f"--category={request.category}", f"--weights={request.weights}",
            f"--seed={request.seed}", f"--cache_dir={self.cache}", f"--workdir={run}",
            "--holdout=0", "--save_heatmaps=false", "--save_predictions=false",
            *(f"--{key}={value}" for key, value in request.overrides.items()),
            *request.device_flags,
        ]  # fmt: skip
        used = self._run(command, dict(os.environ))
        timings = json.loads((run / "timings.json").read_text())
        metrics = sealed.read(run / "metrics.json")
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
        return used | found["seconds"] | {"metrics": found["metrics"]}

    def _run(self, command: list[str], variables: dict[str, str]) -> dict:
        out, log = self.directory / "process.json", self.directory / "process.log"
        out.unlink(missing_ok=True)
        start = [sys.executable, str(HERE / "whole_process.py"), str(out), *command]
        with log.open("w") as file:
            status = subprocess.run(start, env=variables, stdout=file, stderr=file).returncode
        if status:
            reason = last_line(log.read_text(errors="replace"))
            program = shlex.join(command[:3])
            raise UserError(
                f"--compare=anomalib: {program} ended with status {status}: {reason} (see {log})"
            )
        used = json.loads(out.read_text())
        return {"process_s": used["wall_s"]} | {key: used[key] for key in ("cpu_s", "peak_bytes")}


def compare(subject: Subject, request: Request, say=print, progress=silent_progress) -> dict:
    """`{versions, threads, images, driver, programs, parts}`: `driver` is what it was asked for,
    the last two are those of `collect`. A process that fails in a later repeat leaves the repeats
    before it and an `error`.

    Raises:
      UserError: there is no such work in anomalib, or a process failed; its last line is named.
    """
    detector = subject.detector
    arguments = driver_arguments(request, detector, subject.parallel.local[0].platform)
    programs = Programs(request, arguments)
    find_anomalib(request.python)
    runs = {FIRST: [programs.ours(cold=True)], COLD: [], WARM: [], THEIRS: []}
    data = open_category(
        "mvtec_ad", request.data_dir, request.category,
        Geometry.of(detector.config),
        str(programs.cache / "decoded"), seed=request.seed,
    )  # fmt: skip
    forward = forward_call(subject, data)
    forward()  # compiles
    steps: dict[str, Callable[[], dict]] = {
        COLD: lambda: programs.ours(cold=True),
        WARM: programs.ours,
        THEIRS: programs.theirs,
    }
    done = progress(request.repeats * len(steps), "whole processes")
    forwards, stopped = [], {}
    try:
        for number in range(1, request.repeats + 1):
            forwards.append(forward())
            for name, step in steps.items():
                runs[name].append(step())
                say(f"{name}, {number} of {request.repeats}: {runs[name][-1]['process_s']:.1f} s")
                done(1)
    except UserError as error:
        if not runs[THEIRS]:
            raise
        say(f"note: {error.text}; the repeats before are kept")
        stopped["error"] = error.text
    images = [len(data.train), len(data.test)]
    if programs.others["images"] != images:
        raise UserError(
            f"--compare=anomalib: it read {programs.others['images']} images for fit and test of "
            f"{request.category}, ours {images}"
        )
    if not stopped:
        shutil.rmtree(programs.directory)
    found = {**programs.others, **stopped, "driver": arguments}
    return found | collect(runs, forwards, sum(images))


def forward_call(subject: Subject, data: CategoryData) -> Callable[[], float]:
    """A call that passes all images through the backbone alone and returns the seconds."""
    detector, parallel = subject.detector, subject.parallel.here()
    step = parallel.compile(
        lambda variables, images: detector.apply(variables, as_float(images), method="features"),
        split=(False, True),
    )
    variables = parallel.replicate({"backbone": subject.variables["backbone"]})
    size = parallel.batch_size(subject.batch_size)

    def call() -> float:
        start = time.perf_counter()
        for images in (data.train, data.test):
            batches = images.batches(size)
            for maps, _ in in_flight(lambda b: step(variables, parallel.split(b.images)), batches):
                jax.block_until_ready(maps)
        return time.perf_counter() - start

    return call


def collect(runs: dict[str, Sequence[dict]], forwards: Sequence[float], images: int) -> dict:
    """`{programs, parts}`: what each program took, and what both did, with the ratio of medians.

    Args:
      runs: By program the figures of each run, as `Programs` returns them.
      forwards: Seconds of the backbone alone over all images.
      images: How many these are, to fit and to test.
    """

    def of(name: str, *stages: str) -> dict:
        return summary([sum(run[f"{stage}_s"] for stage in stages) for run in runs[name]])

    def part(ours: dict, theirs: dict, **labels: str) -> dict:
        ratio = theirs["median"] / ours["median"]
        return {"ours_s": ours, "theirs_s": theirs, "ratio": ratio, "difference": None} | labels

    ours = ("decode", "fit", "score", "metrics")
    warm, theirs = of(WARM, *ours), of(THEIRS, "fit", "test")
    parts = {
        "fit, warm": part(of(WARM, "decode", "fit"), of(THEIRS, "fit")),
        "fit, cold": part(of(COLD, "decode", "fit"), of(THEIRS, "fit")),
        "score and metrics": part(of(WARM, "score", "metrics"), of(THEIRS, "test")),
        "fit to metrics, warm": part(warm, theirs),
        "fit to metrics, cold": part(of(COLD, *ours), theirs),
        "process, warm": part(of(WARM, "process"), of(THEIRS, "process")),
        "process, cold": part(of(COLD, "process"), of(THEIRS, "process")),
        "beside the backbone": part(
            warm, summary(forwards), work="fit to metrics, warm",
            against=f"our backbone alone, {images} images",
        ),
    }  # fmt: skip
    programs = {
        name: {key: summary([run[key] for run in found]) for key in found[0] if key != "metrics"}
        | {"metrics": found[-1]["metrics"]}
        for name, found in runs.items()
    }
    return {"programs": programs, "parts": parts}
