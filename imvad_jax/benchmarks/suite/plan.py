"""The plan of the suite: parts a to f in order, their steps, and their shares of the time.

Each step is one command of this project in its own process.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from imvad_jax.commands import python
from imvad_jax.data.decode import Geometry
from imvad_jax.reporting.grid import cell_dir

DATASET = "mvtec_ad"
CATEGORIES = ("bottle", "screw")
BACKBONE = "resnet18"  # whose weights travel
OUTPUTS = ("layer1", "layer2", "layer3")  # that they must give; SPADE does without layer4
FIRST = 40.0  # seconds that part a may take
CLOSING = 8.0  # seconds kept for the archive and the summary
# Where each part ends, as a share of the limit: a and b keep half, c to f the other half.
ENDS = {"a": 0.5, "b": 0.5, "c": 0.7, "d": 0.79, "e": 0.88, "f": 1.0}
PARTS = {
    "a": "device, plain matrix products, copies",
    "b": "metrics on bottle and screw, scores compared with the CPU's",
    "c": "throughput of all methods with their official networks",
    "d": "the same in PyTorch",
    "e": "bfloat16",
    "f": "one epoch with either training loop",
}
BATCHES = "1,32,256"


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is done: `official` for figures, `smoke` for tests of the suite itself."""

    preset: str
    geometries: tuple[Geometry, ...]  # that the presets of the methods below ask for
    tables: tuple[tuple[str, ...], ...]  # methods of part b, the first group before `compared`
    timed: tuple[str, ...]  # methods of part c: the quickest, then the most wanted
    compared: tuple[str, ...]  # of part d
    halved: tuple[str, ...]  # methods of part e: rates ...
    halved_table: tuple[str, ...]  # ... and metrics
    looped: tuple[str, ...]  # methods of part f; they see the first of the geometries

    @property
    def size(self) -> int:
        """Pixels of the images that travel."""
        return self.geometries[0].size


SCALES = {
    "official": Scale(
        "official",
        (
            Geometry(256, 256),  # STPM, RD4AD
            Geometry(256, 224, "bilinear", "full"),  # PatchCore
            Geometry(256, 224, "lanczos", "nearest"),  # PaDiM, SPADE, CFA
        ),
        (("padim", "patchcore", "spade"), ("cfa", "stpm", "rd4ad")),
        ("raw_color", "patchcore", "stpm", "padim", "rd4ad", "cfa", "fastflow", "spade",
         "cutpaste", "favae", "draem", "csflow"),
        ("stpm", "rd4ad", "fastflow"), ("cfa", "stpm", "rd4ad"), ("cfa", "stpm"),
        ("stpm", "rd4ad", "draem"),
    ),
    "smoke": Scale(
        "smoke", (Geometry(64, 64),), (("padim",), ()), ("raw_color",), (), (), (),
        ("cfa",),
    ),
}  # fmt: skip

# MVTec's bottle has 209 good images: 1 % of their 28 x 28 patches are 1,638 rows of the bank.
_MORE = {
    "patchcore": ("--coreset_ratio=0.01", "--num_images=209"),
    "favae": ("--steps_per_epoch=1",),  # of the fit alone; the official 125 time nothing new
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One process: what it runs, what it is given, and what becomes of it."""

    part: str
    name: str  # letters, digits and hyphens
    arguments: tuple[str, ...]  # of Python
    kind: str  # table, score, benchmark, device or loops: how its files are collected
    folder: Path  # that it writes to
    needs: float = 20.0  # seconds without which it is not begun
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    limited: bool = True  # whether it takes --time_limit
    requires: Path | None = None  # without which there is nothing to do
    left_out: str = ""  # why it is never begun


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What the steps are given."""

    cache: Path  # --cache_dir, with the decoded images
    weights: str
    out: Path
    has_torch: bool = True

    @property
    def work(self) -> Path:
        """Where runs lie."""
        return self.out / "work"


def steps(scale: Scale, inputs: Inputs, parts: Sequence[str] = tuple(PARTS)) -> list[Step]:
    """All steps of the chosen parts, in order."""
    found = [
        _device(inputs), *_tables(scale, inputs), *_timings(scale, inputs),
        *_torch(scale, inputs), *_halves(scale, inputs), *_loops(scale, inputs),
    ]  # fmt: skip
    return [step for step in found if step.part in parts]


def ends(seconds: float) -> dict[str, float]:
    """Seconds from the start after which each part is ended, of a limit of so many seconds.

    What a part does not use passes on to the later ones.
    """
    whole = max(seconds - CLOSING, 0.0)
    found = {part: share * whole for part, share in ENDS.items()}
    return found | {"a": min(FIRST, whole)}


def scored_run(scale: Scale, inputs: Inputs) -> Path:
    """The run of PaDiM on bottle whose detector is scored elsewhere, too."""
    return inputs.work / "table-0" / cell_dir("padim", CATEGORIES[0], scale.preset, 0)


def _program(name: str, *arguments: str) -> tuple[str, ...]:
    return ("-m", "imvad_jax.programs.entry", name, *arguments)


def _device(inputs: Inputs) -> Step:
    folder = inputs.work / "device"
    module = "imvad_jax.benchmarks.suite.device"
    return Step("a", "device", ("-m", module, str(folder / "device.json")), "device", folder,
                FIRST - CLOSING, limited=False)  # fmt: skip


def _table(part, name, methods, scale, inputs, *arguments) -> Step:
    folder = inputs.work / name
    coreset = ("--coreset_ratio=0.01",) if "patchcore" in methods else ()
    command = _program(
        "table", f"--methods={','.join(methods)}", f"--dataset={DATASET}",
        f"--categories={','.join(CATEGORIES)}", f"--preset={scale.preset}",
        f"--weights={inputs.weights}", f"--cache_dir={inputs.cache}", f"--workdir={folder}",
        f"--results_dir={folder}-results", "--processes=1", "--nosave_heatmaps",
        f"--backbone={BACKBONE}", *coreset, *arguments,
    )  # fmt: skip
    return Step(part, name, command, "table", folder)


def _tables(scale: Scale, inputs: Inputs) -> list[Step]:
    found = [
        _table("b", f"table-{number}", methods, scale, inputs)
        for number, methods in enumerate(scale.tables)
        if methods
    ]
    run = scored_run(scale, inputs)
    scored = []
    for name, environment in (
        ("cpu", {"JAX_PLATFORMS": "cpu"}),
        ("highest", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
    ):
        folder = inputs.work / f"scores-{name}"
        command = _program(
            "run", "--method=padim", f"--preset={scale.preset}", f"--backbone={BACKBONE}",
            f"--dataset={DATASET}", f"--category={CATEGORIES[0]}", f"--checkpoint={run}",
            f"--cache_dir={inputs.cache}", f"--workdir={folder}", "--nosave_heatmaps",
        )  # fmt: skip
        scored.append(Step("b", f"scores-{name}", command, "score", folder, 12.0, environment,
                           requires=run / "metrics.json"))  # fmt: skip
    return [*found[:1], *scored, *found[1:]]


def _benchmark(part: str, prefix: str, method: str, inputs: Inputs, scale, *arguments) -> Step:
    folder = inputs.work / f"{prefix}-{method}"
    command = _program(
        "benchmark", f"--method={method}", f"--preset={scale.preset}", f"--workdir={folder}",
        f"--score_batches={BATCHES}", "--num_images=32", "--repeats=3", "--seconds=0.1",
        "--fit_repeats=0", *_MORE.get(method, ()), *arguments,
    )  # fmt: skip
    return Step(part, f"{prefix}-{method}".replace("_", "-"), command, "benchmark", folder, 15.0)


def _timings(scale: Scale, inputs: Inputs) -> list[Step]:
    return [_benchmark("c", "rates", method, inputs, scale) for method in scale.timed]


def _torch(scale: Scale, inputs: Inputs) -> list[Step]:
    missing = "" if inputs.has_torch else "PyTorch is not installed"
    found = [
        _benchmark("d", "torch", method, inputs, scale, "--compare=torch_steps",
                   "--score_batches=1", "--compiled_cache", f"--cache_dir={inputs.cache}")
        for method in scale.compared
    ]  # fmt: skip
    # PyTorch works on the same GPU in the same process.
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [dataclasses.replace(s, environment=shared, left_out=missing) for s in found]


def _halves(scale: Scale, inputs: Inputs) -> list[Step]:
    found = [
        _benchmark("e", "bfloat16", method, inputs, scale, "--dtype=bfloat16")
        for method in scale.halved
    ]
    if scale.halved_table:
        found.append(_table("e", "bfloat16-table", scale.halved_table, scale, inputs,
                            "--dtype=bfloat16"))  # fmt: skip
    return found


def _loops(scale: Scale, inputs: Inputs) -> list[Step]:
    """Two programs are compiled, and each takes five epochs; nothing of that is known before."""
    found = []
    for method in scale.looped:
        folder = inputs.work / f"loops-{method}"
        arguments = (
            "-m", "imvad_jax.benchmarks.suite.loops", str(folder / "loops.json"), method,
            scale.preset, str(inputs.cache), DATASET, CATEGORIES[0],
        )  # fmt: skip
        found.append(Step("f", f"loops-{method}", arguments, "loops", folder, 25.0, limited=False))
    return found


def full_command(step: Step, seconds: float | None) -> list[str]:
    """What the step is started as, with so many seconds to live; None: as many as it takes."""
    more = [f"--time_limit={max(seconds, 1):.0f}s"] if step.limited and seconds else []
    return [*python(), *step.arguments, *more]
