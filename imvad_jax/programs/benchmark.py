"""Measures how fast methods fit, train and score on this machine.

    imvad benchmark --method=padim,patchcore --preset=cpu --workdir=BENCH

Writes benchmark.json and benchmark.png to --workdir. Images are random unless --data_dir is given,
and weights are random unless --weights is. Every field of a method's configuration is also a flag.
With --scaling it measures cost against size instead, and writes scaling.json and scaling.png.
"""

from pathlib import Path

from absl import flags

from imvad_jax import methods, presets
from imvad_jax.benchmarks import measure_methods, report, scaling, workloads
from imvad_jax.benchmarks.comparisons import Comparisons
from imvad_jax.benchmarks.images import Source
from imvad_jax.benchmarks.measure_methods import Request
from imvad_jax.benchmarks.scaling_point import Request as Point
from imvad_jax.commands import command, process
from imvad_jax.errors import UserError, say
from imvad_jax.programs import benchmark_flags as given
from imvad_jax.programs import config_flags, devices, output, page, time_limit
from imvad_jax.progress import tqdm_progress
from imvad_jax.training.limit import limited

flags.adopt_module_key_flags(given)  # --help shows them
FIRST = (
    "method", "preset", "workdir", "weights", "data_dir", "category", "num_images", "repeats",
    "scaling", "compare", "render", "json",
)  # fmt: skip


def render() -> int:
    """Writes or checks BENCHMARKS.md."""
    directory, out = given.BENCHMARKS_DIR.value, Path(given.OUT.value)
    stale = f"{out} does not fit the files in {directory}; run: {report.COMMAND}"
    text = report.render_benchmarks(directory)
    check = given.CHECK.value
    status = page.write_or_check(out, text, check=check, stale=stale)
    output.result(*page.said({out: status}, check))
    return status


def find_methods() -> dict[str, tuple[methods.DetectorConfig, dict[str, str]]]:
    """The methods that --method names, with configuration and overrides. Raises UserError."""
    if not given.METHOD.value:
        raise UserError(
            f"--method is missing; all, or some of {', '.join(sorted(methods.METHODS))}"
        )
    names = list(methods.METHODS) if given.METHOD.value == ["all"] else given.METHOD.value
    for name in names:
        methods.get(name)
    overrides = config_flags.config_overrides()
    return presets.resolve_all(list(dict.fromkeys(names)), given.PRESET.value, overrides)


def find_request() -> Request:
    """What is to be measured. Raises UserError where a flag is missing or makes no sense."""
    configs = find_methods()
    if not given.WORKDIR.value:
        raise UserError("--workdir is missing: name the directory to write to")
    if flags.FLAGS.num_processes > 1:
        raise UserError("--num_processes: the benchmark runs on one host")
    workdir, profile = Path(given.WORKDIR.value), given.PROFILE.value
    source = Source(
        num_images=given.NUM_IMAGES.value, data_dir=given.DATA_DIR.value,
        dataset=given.DATASET.value, category=given.CATEGORY.value, seed=given.SEED.value,
    )  # fmt: skip
    options = workloads.Options(
        repeats=given.REPEATS.value, least_seconds=given.SECONDS.value,
        fit_repeats=given.FIT_REPEATS.value, kept_features=given.KEPT.value,
        profile=Path(profile) if profile else None,
        score_batches=workloads.parse_batches(given.SCORE_BATCHES.value or ()),
    )  # fmt: skip
    shared = flags.FLAGS.get_key_flags_for_module(devices)
    shared = [flag.serialize() for flag in shared if flag.present and flag.name != "cache_dir"]
    comparisons = Comparisons(
        names=given.COMPARE.value, source=source, weights=given.WEIGHTS.value, workdir=workdir,
        anomalib_python=given.ANOMALIB_PYTHON.value, process_repeats=given.PROCESS_REPEATS.value,
        device_flags=tuple(shared),
    )  # fmt: skip
    return Request(
        workdir=workdir, methods=configs, preset=given.PRESET.value, weights=given.WEIGHTS.value,
        seed=given.SEED.value, source=source, options=options, comparisons=comparisons,
        compiled_cache=given.COMPILED.value, command=command("benchmark"),
    )  # fmt: skip


def find_scaling(request: Request) -> scaling.Scaling:
    """What is to be measured with --scaling. Raises UserError for flags that do not go with it."""
    for name in ("data_dir", "compare", "kept_features", "profile"):
        if flags.FLAGS[name].value:
            raise UserError(f"--{name}: cannot be combined with --scaling; omit one of them")
    options = request.options
    return scaling.Scaling(
        scales=[
            scaling.Scale(
                template=Point(
                    method=name, preset=request.preset, overrides=overrides,
                    weights=request.weights, seed=request.seed, repeats=options.repeats,
                    least_seconds=options.least_seconds, fit_repeats=options.fit_repeats,
                ),
                config=config, num_devices=flags.FLAGS.num_devices,
            )
            for name, (config, overrides) in request.methods.items()
        ],
        values=scaling.sizes({axis: flag.value for axis, flag in given.SIZES.items()}),
        workdir=request.workdir, command=request.command,
    )  # fmt: skip


def command_apart(name: str, own: Path, left: float, overrides: dict[str, str]) -> list[str]:
    """The command of a process that measures one method: our flags, but fields that it has not."""
    left_out = {"method", "workdir", *config_flags.config_overrides()} - overrides.keys()
    parts = [flag for flag in flags.FLAGS if flags.FLAGS[flag].present and flag not in left_out]
    parts = [flags.FLAGS[flag].serialize() for flag in parts]
    if left < float("inf"):
        parts.append(f"--time_limit={max(left, 1):.0f}s")  # the last of a name counts
    own_flags = [f"--method={name}", f"--workdir={own}"]
    return process("benchmark", *parts, *own_flags)


prepare = config_flags.define_outside_flags


def main() -> int:
    """The program."""
    if given.RENDER.value:
        return render()
    limit = time_limit.start_limit()
    request = find_request()
    if given.SCALING.value:
        found = scaling.run(find_scaling(request), say, limited(tqdm_progress, limit))
        output.result(found.text, found.document)
        return int(found.failed)
    how = measure_methods.Measuring(
        start=devices.start_jax, limit=limit, log=say, progress=tqdm_progress,
        apart=lambda name, own, left: command_apart(name, own, left, request.methods[name][1]),
    )  # fmt: skip
    found = measure_methods.measure_methods(request, how)
    done = [record for record in found.records if "error" not in record]
    if found.records:
        lines = [*dict.fromkeys(map(report.device_line, done)), report.format_tables(found.records)]
        lines.append(f"written to {request.workdir}: benchmark.json, benchmark.png")
        document = {"workdir": str(request.workdir), "command": request.command}
        output.result("\n".join(lines), document | {"records": found.records})
    if found.stopped:
        raise found.stopped
    return int(found.failed)
