"""Measures how fast methods fit, train and score on this machine.

    python -m experiments.benchmark --method=padim,patchcore --preset=cpu --workdir=BENCH

Writes benchmark.json and benchmark.png below --workdir. Images are random unless --data_dir names
some, weights are random unless --weights does. Every field of a method's configuration is a flag.
With --scaling it writes scaling.json and scaling.png instead: cost against size.
"""

import importlib.util
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

from absl import flags

from experiments import (
    cell,
    compare_anomalib,
    devices,
    measure_method,
    program,
    scaling,
    settings,
    time_limit,
    workloads,
)
from experiments.record import write_json
from imvad_jax import methods
from imvad_jax.data import layouts
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError, choose
from imvad_jax.owned import BENCHMARK, check_directory, write_own
from imvad_jax.reporting import benchmarks
from imvad_jax.reporting.plots import figure_png
from imvad_jax.reporting.progress import tqdm_progress
from imvad_jax.reporting.results import folder_name
from imvad_jax.training.limit import LIMIT_STATUS, SIGNAL_STATUS, Limit, Stopped, limited

_METHOD = flags.DEFINE_list(
    "method", None, "Methods, separated by commas, or all; package.module:Class for those of a "
    "package of your own.",
)  # fmt: skip
_PRESET = flags.DEFINE_string("preset", "official", "Named configuration: official, benchmark, ...")
_WORKDIR = program.define_path("workdir", None, "Directory that is written to.")
_WEIGHTS = program.define_sources(
    "weights", "random", "Weights of the backbone, as experiments.run has them; no time depends on "
    "them.",
)  # fmt: skip
_NUM_IMAGES = flags.DEFINE_integer(
    "num_images", 128, "Images that are fitted on and scored.", lower_bound=1
)
_DATA_DIR = program.define_path(
    "data_dir", None, "Directory of a dataset whose good images are taken; left out: random ones."
)
_DATASET = flags.DEFINE_string("dataset", "mvtec_ad", "Layout of the data.")
_CATEGORY = flags.DEFINE_string("category", None, "With --data_dir: the category.")
_SEED = flags.DEFINE_integer("seed", 0, "Seeds every random draw.", lower_bound=0)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Repeats of every measurement.", lower_bound=1)
_SECONDS = flags.DEFINE_float(
    "seconds", 0.5, "Least seconds of a repeat; short steps are done several times.",
    lower_bound=0.0,
)  # fmt: skip
_FIT_REPEATS = flags.DEFINE_integer(
    "fit_repeats", 1, "Fits after the first one, which compiles; 0: that one alone is timed. "
    "Trained methods are fitted for one epoch unless --epochs says otherwise.", lower_bound=0,
)  # fmt: skip
_SCORE_BATCHES = flags.DEFINE_list(
    "score_batches", None, "Batch sizes that scoring is measured at besides 1; default: the "
    "preset's.",
)  # fmt: skip
_KEPT = flags.DEFINE_bool(
    "kept_features", False, "Compare the training step with kept and with recomputed features."
)
_COMPARE = flags.DEFINE_list(
    "compare", [], "torch: measure the same backbone and, for padim and patchcore, the same work "
    "in plain PyTorch, in turn; PyTorch must be installed. torch_steps: the backbone and the "
    "training step of stpm, rd4ad, fastflow, eager and by torch.compile. anomalib: padim and "
    "patchcore as whole processes on --category, fit to metrics, in turn with anomalib; see "
    "--anomalib_python. metrics: our five metrics of the test images of --category, or of drawn "
    "maps, in turn with scikit-learn and a plain PRO.",
)  # fmt: skip
_ANOMALIB_PYTHON = program.define_path(
    "anomalib_python", None, "With --compare=anomalib: the python of an environment that has it. "
    f"{compare_anomalib.INSTALL}",
)  # fmt: skip
_PROCESS_REPEATS = flags.DEFINE_integer(
    "process_repeats", 3, "With --compare=anomalib: repeats of the whole processes.", lower_bound=1
)
_PROFILE = program.define_path(
    "profile", None, "Directory below which jax.profiler writes a trace of some training steps, of "
    "the fit and of some scored batches; the operations that took longest are printed.",
)  # fmt: skip
_SCALING = flags.DEFINE_bool(
    "scaling", False, "Measure instead how cost grows with the number of images, the size of the "
    "bank and the number of devices, on drawn images; see --scaling_images and the like.",
)  # fmt: skip
_COMPILED = flags.DEFINE_bool(
    "compiled_cache", False, "Take compiled programs from --cache_dir; compile seconds are then "
    "those of reading them.",
)  # fmt: skip
_RENDER = flags.DEFINE_bool("render", False, "Only write --out from the files in --benchmarks_dir.")
_BENCHMARKS_DIR = program.define_path(
    "benchmarks_dir", "benchmarks", "With --render: directory of stored benchmark.json files."
)
_OUT = program.define_path("out", "BENCHMARKS.md", "With --render: page to write.")
_CHECK = flags.DEFINE_bool(
    "check", False, "With --render: only compare the page with the files; status 1 if it differs."
)
settings.define_config_flags()
flags.adopt_module_key_flags(settings)  # --help shows them, too
flags.adopt_module_key_flags(devices)
flags.adopt_module_key_flags(scaling)
flags.adopt_module_key_flags(time_limit)


def render() -> int:
    """Writes or checks BENCHMARKS.md."""
    out = Path(_OUT.value)
    text = benchmarks.render_benchmarks(_BENCHMARKS_DIR.value)
    if _CHECK.value:
        if out.is_file() and out.read_text(encoding="utf-8") == text:
            return 0
        print(f"{out} does not fit the files in {_BENCHMARKS_DIR.value}; run: "
              f"{benchmarks.COMMAND}", file=sys.stderr)  # fmt: skip
        return 1
    try:
        out.parent.stat()  # none is made
        write_own(out, lambda file: file.write(text.encode()))
    except OSError as error:
        raise UserError(f"--out: cannot write {out} ({error.strerror})") from None
    print(f"written: {out}")
    return 0


def chosen_methods() -> list[str]:
    """The methods that --method names. Raises UserError for an unknown one, or none."""
    if not _METHOD.value:
        raise UserError(
            f"--method is missing; all, or some of {', '.join(sorted(methods.METHODS))}"
        )
    if _METHOD.value == ["all"]:
        return list(methods.METHODS)
    for name in _METHOD.value:
        methods.get(name)
    return list(dict.fromkeys(_METHOD.value))


@cache
def load_category(geometry: Geometry) -> CategoryData:
    """The category of --data_dir and --category, decoded once. Raises UserError without these."""
    if not _CATEGORY.value:
        raise UserError("--category is missing: name the category of --data_dir to take")
    layout = layouts.get(_DATASET.value)
    (category,) = layouts.select_categories(layout, _DATA_DIR.value, [_CATEGORY.value])
    return open_category(_DATASET.value, _DATA_DIR.value, category, geometry, None, _SEED.value)


def load_images(config: methods.DetectorConfig):
    """The images to fit on and to score."""
    if not _DATA_DIR.value:
        return workloads.random_images(_NUM_IMAGES.value, config.input_size, _SEED.value)
    data = load_category(Geometry.of(config))
    if len(data.train) < _NUM_IMAGES.value:
        raise UserError(
            f"--num_images={_NUM_IMAGES.value}: {data.name} has {len(data.train)} good images"
        )
    return data.train.take(range(_NUM_IMAGES.value))


def comparisons(plan: cell.Plan | None = None) -> dict:
    """What measures the same work, by name. Raises UserError where it is not installed, or lacks
    what it needs; without a plan that is all."""
    check = {
        "torch": check_torch, "torch_steps": check_torch, "anomalib": check_anomalib,
        "metrics": lambda: None,
    }  # fmt: skip
    for name in _COMPARE.value:
        check[choose("--compare", name, check)]()
    call = {
        "torch": compare_with_torch,
        "torch_steps": compare_steps_with_torch,
        "anomalib": partial(compare_with_anomalib, plan),
        "metrics": compare_with_metrics,
    }
    return {name: call[name] for name in _COMPARE.value}


def check_torch() -> None:
    """Raises UserError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise UserError("--compare: PyTorch is not installed; pip install torch==2.13.0")


def check_anomalib() -> None:
    """Raises UserError where anomalib cannot be compared, whatever the method."""
    if not _DATA_DIR.value or not _CATEGORY.value:
        raise UserError(
            "--compare=anomalib: whole processes read files; name them by --data_dir, --category"
        )
    if _DATASET.value != "mvtec_ad":
        raise UserError(
            f"--compare=anomalib: --dataset={_DATASET.value} is not compared; expected mvtec_ad, "
            "or a directory laid out as it"
        )
    compare_anomalib.check_weights(_WEIGHTS.value)
    compare_anomalib.find_anomalib(_ANOMALIB_PYTHON.value)


def score_batches() -> tuple[int, ...]:
    """The sizes of --score_batches, rising; none: the usual ones. Raises UserError."""
    try:
        found = sorted({*map(int, _SCORE_BATCHES.value or ()), *([1] * bool(_SCORE_BATCHES.value))})
    except ValueError:
        found = [0]
    if found and found[0] < 1:
        raise UserError(
            f"--score_batches={','.join(_SCORE_BATCHES.value)}: expected numbers such as 1,32,256"
        )
    return tuple(found)


def check_profile() -> None:
    """Raises UserError where --profile names no directory that can be written to."""
    try:
        if _PROFILE.value:
            Path(_PROFILE.value).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--profile={_PROFILE.value}: {error.strerror}") from None


def compare_with_torch(subject: workloads.Subject) -> dict:
    """As `compare_torch.compare`; PyTorch is imported only now, after the peak memory is read."""
    from experiments import compare_torch

    return compare_torch.compare(subject)


def compare_steps_with_torch(subject: workloads.Subject) -> dict:
    """As `compare_torch_steps.compare`; PyTorch is imported only now."""
    from experiments import compare_torch_steps

    return compare_torch_steps.compare(subject)


def compare_with_metrics(subject: workloads.Subject) -> dict:
    """As `compare_metrics.compare`; scikit-learn is imported only now, as PyTorch is."""
    from experiments import compare_metrics

    if not _DATA_DIR.value:
        return compare_metrics.compare(subject, None)
    config = subject.detector.config
    data = load_category(Geometry.of(config))
    return compare_metrics.compare(subject, data)


def compare_with_anomalib(plan: cell.Plan, subject: workloads.Subject) -> dict:
    """As `compare_anomalib.compare`, of what the flags name."""
    given = flags.FLAGS.get_key_flags_for_module(devices)
    request = compare_anomalib.Request(
        _ANOMALIB_PYTHON.value, plan.method, plan.preset, plan.overrides, _DATA_DIR.value,
        _CATEGORY.value, _WEIGHTS.value, plan.seed,
        tuple(f.serialize() for f in given if f.present and f.name != "cache_dir"),
        Path(_WORKDIR.value), _PROCESS_REPEATS.value,
    )  # fmt: skip
    say = partial(print, flush=True)
    return compare_anomalib.compare(subject, request, say, tqdm_progress)


def measure_one(name: str, config, overrides: dict[str, str], limit: Limit) -> dict:
    """Measures one method in this process; returns its record."""
    if flags.FLAGS.num_processes > 1:
        raise UserError("--num_processes: the benchmark runs on one host")
    parallel = devices.start_jax()
    if not _COMPILED.value:
        import jax

        jax.config.update("jax_enable_compilation_cache", False)
    plan = cell.Plan(
        name, _PRESET.value, overrides, config, _SEED.value, _WEIGHTS.value, command_line()
    )
    options = workloads.Options(
        _REPEATS.value, _SECONDS.value, _FIT_REPEATS.value, _KEPT.value,
        Path(_PROFILE.value) if _PROFILE.value else None, score_batches(),
    )  # fmt: skip
    source = f"{_DATASET.value}/{_CATEGORY.value}" if _DATA_DIR.value else "random"
    record = measure_method.benchmark(
        plan, load_images(config), parallel, options, comparisons(plan),
        partial(print, flush=True), limited(tqdm_progress, limit), limit,
    )  # fmt: skip
    return record | {"images_from": source, "compiled_cache": _COMPILED.value}


def scale(configs: dict[str, tuple[methods.DetectorConfig, dict[str, str]]]) -> int:
    """Measures how cost grows; returns the exit status."""
    for name in ("data_dir", "compare", "kept_features", "profile"):
        if flags.FLAGS[name].value:
            raise UserError(f"--{name}: has no meaning with --scaling; leave one of them out")
    if flags.FLAGS.num_processes > 1:
        raise UserError("--num_processes: the benchmark runs on one host")
    scales = [
        scaling.Scale(
            scaling.Request(
                "", 0, name, _PRESET.value, overrides, _WEIGHTS.value, _SEED.value, _REPEATS.value,
                _SECONDS.value, _FIT_REPEATS.value,
            ),
            config, flags.FLAGS.num_devices,
        )
        for name, (config, overrides) in configs.items()
    ]  # fmt: skip
    say = partial(print, flush=True)
    return scaling.run(scales, Path(_WORKDIR.value), command_line(), say, tqdm_progress)


def arguments_of(name: str, own: Path, overrides: dict[str, str]) -> list[str]:
    """The flags for a process that measures one method: ours, but fields that it has not."""
    left_out = {"method", "workdir", *settings.config_overrides()} - overrides.keys()
    given = [flag for flag in flags.FLAGS if flags.FLAGS[flag].present and flag not in left_out]
    given = [flags.FLAGS[flag].serialize() for flag in given]
    return [*given, f"--method={name}", f"--workdir={own}"]


def measure_apart(
    name: str, workdir: Path, overrides: dict[str, str], limit: Limit
) -> dict:
    """Measures one method in a process of its own, whose peak memory is then that method's alone.

    Returns its record, or `{method, error}`.

    Raises:
      Stopped: there was no time left for it.
    """
    own = workdir / folder_name(name)
    (own / "benchmark.json").unlink(missing_ok=True)
    arguments = arguments_of(name, own, overrides)
    if limit.left < float("inf"):
        arguments.append(f"--time_limit={max(limit.left, 1):.0f}s")  # the last of a name counts
    command = [sys.executable, "-m", "experiments.benchmark", *arguments]
    last = ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        limit.on_end(child.terminate)
        for line in child.stderr:
            sys.stderr.write(line)
            last = line.strip() or last
    if child.returncode in (LIMIT_STATUS, SIGNAL_STATUS):
        raise limit.stop(f"{name}: {last}")
    if child.returncode < 0:
        return {"method": name, "error": f"ended by signal {-child.returncode}; out of memory?"}
    if child.returncode:
        return {"method": name, "error": last.removeprefix("error: ")}
    record = benchmarks.read_benchmark(own / "benchmark.json")["records"][0]
    return record | {"command": command_line()}


def command_line() -> str:
    """How this program was called."""
    return program.command("benchmark")


def write(workdir: Path, records: list[dict]) -> None:
    """Writes benchmark.json and benchmark.png of what was measured until now."""
    write_json(workdir / "benchmark.json", {"command": command_line(), "records": records})
    if any("error" not in record for record in records):
        png = figure_png(benchmarks.rate_figure(records))
        write_own(workdir / "benchmark.png", lambda file: file.write(png))


def main() -> int:
    """The program."""
    if _RENDER.value:
        return render()
    names, limit = chosen_methods(), time_limit.start_limit()
    configs = settings.resolve_all(names, _PRESET.value, settings.config_overrides())
    if not _WORKDIR.value:
        raise UserError("--workdir is missing: name the directory to write to")
    workdir, records = Path(_WORKDIR.value), []
    for top in (workdir, *(workdir / folder_name(name) for name in names if len(names) > 1)):
        check_directory(top, BENCHMARK)
    if _SCALING.value:
        return scale(configs)
    comparisons()  # says now what is missing
    score_batches()
    check_profile()
    # The next method is expected to take as long as the slowest so far.
    seconds, stopped = 0.0, None
    for number, name in enumerate(names, 1):
        start = limit.clock()
        try:
            limit.require(seconds, f"{name}: a method")
            if len(names) == 1:
                print(f"== {methods.get(name).title}", flush=True)
                records.append(measure_one(name, *configs[name], limit))
                if "left" in records[0]:
                    stopped = limit.stop(f"{name}: {records[0]['left']}")
            else:
                print(f"method {number} of {len(names)}", flush=True)
                records.append(measure_apart(name, workdir, configs[name][1], limit))
        except Stopped as stop:
            stopped = stop
            break
        seconds = max(seconds, limit.clock() - start)
        write(workdir, records)
    for line in dict.fromkeys(benchmarks.device_line(r) for r in records if "error" not in r):
        print(line)
    if records:
        print(benchmarks.format_tables(records))
    if records:
        print(f"written to {workdir}: benchmark.json, benchmark.png")
    if stopped:
        raise stopped
    return 1 if any("error" in record for record in records) else 0


if __name__ == "__main__":
    program.run(main, settings.define_outside_flags)
