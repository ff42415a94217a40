"""The workloads of the benchmark for one method: its fit, training step and scoring."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax import methods
from imvad_jax.benchmarks.measure import Samples, measure, ratio, summary
from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.errors import UserError
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.progress import silent_progress
from imvad_jax.runs import memory
from imvad_jax.training import gradient
from imvad_jax.training.compiled import traced
from imvad_jax.training.features import compute_features
from imvad_jax.training.fit import fit
from imvad_jax.training.flops import count_flops
from imvad_jax.training.job import Job, in_flight
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import place, score, scoring_step
from imvad_jax.training.timing import COMPILES

PRODUCT_SIZE = {"cpu": 1024}  # rows of the plain matrix product, by platform ...
LARGE_PRODUCT = 8192  # ... and of accelerators


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured."""

    repeats: int = 5
    least_seconds: float = 0.5  # of a repeat
    fit_repeats: int = 1  # after the first fit, which compiles
    kept_features: bool = False
    profile: Path | None = None  # traces are written below; None: there are none
    score_batches: tuple[int, ...] = ()  # rising; none: 1 and the configuration's


def parse_batches(texts: Sequence[str]) -> tuple[int, ...]:
    """The sizes that --score_batches names, and 1, rising; none of none. Raises UserError."""
    try:
        found = sorted({1, *map(int, texts)}) if texts else []
    except ValueError:
        found = [0]
    if found and found[0] < 1:
        raise UserError(f"--score_batches={','.join(texts)}: expected numbers such as 1,32,256")
    return tuple(found)


@dataclasses.dataclass(kw_only=True)
class Subject:
    """A method about to be measured."""

    detector: methods.Detector
    variables: dict
    images: Images
    parallel: Parallel
    seed: int
    options: Options

    @property
    def batch_size(self) -> int:
        """Images per batch over all devices."""
        return self.detector.config.batch_size


def random_images(count: int, size: int, seed: int) -> ArrayImages:
    """uint8 noise `[count, size, size, 3]`, for timings that need no dataset."""
    shape = (count, size, size, 3)
    return ArrayImages(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def build(
    step: Any, *arguments: Any, direct: Callable, counted: Sequence[Any] | None = None
) -> dict:
    """Compiles a step for these arguments: seconds, and what it computes.

    `flops` are those of `count_flops`, of all devices, with convolutions counted by their
    definition: of `direct`, the same step of `in_xla_form`, on the arguments `counted` where they
    are others. `compiled_flops_of_a_device` is what
    XLA's cost analysis of the compiled program says, where it says anything.
    """
    start = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    flops, complete = count_flops(
        traced(direct, *map(_untransformed, arguments if counted is None else counted))
    )
    cost = compiled.cost_analysis() or {}
    return {
        "compile_s": seconds,
        "flops": flops,
        "flops_complete": complete,
        "compiled_flops_of_a_device": cost.get("flops"),
        "temporary_bytes": getattr(compiled.memory_analysis(), "temp_size_in_bytes", 0),
    }


def in_xla_form(detector: methods.Detector) -> methods.Detector:
    """The detector whose steps are traced to be counted: networks convolve as they are written."""
    config = dataclasses.replace(detector.config, convolution="xla")
    return detector.clone(config=config).compile_key()


def _untransformed(argument: Any) -> Any:
    """An argument of a step without the kernels that are made ready for another form."""
    if not isinstance(argument, dict):
        return argument
    return {name: value for name, value in argument.items() if name != TRANSFORMED}


def rates(samples: Samples, images: int, flops: int) -> dict:
    """What the seconds of a step of so many images and operations come to."""
    step = summary(samples.wall)
    return {
        "step_s": step,
        "cpu_s": summary(samples.cpu),
        "images_per_s": images / step["median"],
        "flops_per_s": flops / step["median"],
    }


def product_rate(parallel: Parallel, dtype: str, options: Options, size: int = 0) -> dict:
    """FLOP/s of a plain matrix product of every device at once: what the machine reaches."""
    size = size or PRODUCT_SIZE.get(parallel.local[0].platform, LARGE_PRODUCT)

    def draw(number):
        return jax.random.normal(jax.random.key(number.ravel()[0]), (size, size), dtype)

    numbers = parallel.split(np.arange(parallel.count, dtype=np.int32))
    factor = parallel.compile(draw, split=(True,))(numbers)
    step = parallel.compile(jnp.matmul, split=(True, True))

    def call(steps):
        result = None
        for _ in range(steps):
            result = step(factor, factor)
        jax.block_until_ready(result)

    samples = measure({"product": call}, options.repeats, options.least_seconds)["product"]
    seconds = summary(samples.wall)
    return {
        "size": size,
        "dtype": dtype,
        "step_s": seconds,
        "flops_per_s": 2 * size**3 * parallel.count / seconds["median"],
    }


def before_training(subject: Subject) -> dict:
    """The variables as the gradient phase finds them."""
    phases = subject.detector.phases
    earlier = phases[: phases.index("gradient")]
    if not earlier:
        return dict(subject.variables)
    fitted = fit(
        subject.detector,
        subject.variables,
        subject.images,
        subject.parallel,
        subject.seed,
        phases=earlier,
    )
    return subject.variables | fitted


def training_call(subject: Subject, cache_features: bool):
    """What the compiled training step is (`build`), and a call that takes steps with it.

    The state is donated from step to step; the host waits for the last one alone.
    """
    config = dataclasses.replace(subject.detector.config, cache_features=cache_features)
    detector = subject.detector.clone(config=config)
    parallel = subject.parallel.dividing(config.batch_size)
    steps = np.int32(gradient.epoch_steps(len(subject.images), config) * config.epochs)
    step = gradient.training_step(detector.compile_key(), tuple(parallel.devices))
    start = gradient.init_state(config, subject.variables, steps)
    state = parallel.replicate(jax.tree.map(jnp.array, start))  # copies: the state is donated
    fixed = gradient.place_fixed(detector, subject.variables, parallel)
    key = gradient.training_key(subject.seed)
    order = np.resize(np.arange(len(subject.images)), config.batch_size)
    inputs = subject.images.take(order)
    if cache_features:
        inputs = compute_features(detector, fixed, Job(inputs, parallel, subject.seed))
    batch = next(iter(inputs.batches(config.batch_size, np.arange(config.batch_size)))).images
    direct = gradient.training_step(in_xla_form(detector), tuple(parallel.devices))
    found = build(step, state, fixed, parallel.split(batch), key, steps, direct=direct)
    found |= {"batch_size": config.batch_size, "devices": parallel.count}
    found["input_bytes_of_an_image"] = (
        sum(leaf.nbytes for leaf in jax.tree.leaves(batch)) // config.batch_size
    )

    def call(count):
        nonlocal state
        for _ in range(count):
            state, _ = step(state, fixed, parallel.split(batch), key, steps)
        jax.block_until_ready(state)

    return found, call


def training(subject: Subject) -> dict:
    """The training step as the configuration has it."""
    found, call = training_call(subject, subject.detector.config.cache_features)
    options = subject.options
    samples = measure({"step": call}, options.repeats, options.least_seconds)["step"]
    return found | rates(samples, found["batch_size"], found["flops"])


def kept_features(subject: Subject) -> dict:
    """The training step with kept features against recomputed ones, in turn."""
    parts = {}
    for name, cache_features in (("kept", True), ("recomputed", False)):
        parts[name] = training_call(subject, cache_features)
    calls = {name: call for name, (_, call) in parts.items()}
    samples = measure(calls, subject.options.repeats, subject.options.least_seconds)
    found: dict[str, Any] = {
        name: {"wall_s": summary(s.wall), "cpu_s": summary(s.cpu)} for name, s in samples.items()
    }
    for kind in ("wall", "cpu"):
        found[f"{kind}_ratio"] = ratio(samples, "kept", "recomputed", kind)
    found["bytes_of_an_image"] = parts["kept"][0]["input_bytes_of_an_image"]
    return found


def fit_times(subject: Subject, progress=silent_progress) -> tuple[dict, dict]:
    """Seconds of the whole fit, the first one (which compiles) apart; and the fitted variables."""
    config = subject.detector.config
    fit_once = partial(
        fit, subject.detector, subject.variables, subject.images, subject.parallel, subject.seed,
        progress=progress,
    )  # fmt: skip
    compiling, start = COMPILES.seconds, time.perf_counter()
    fitted = fit_once()
    found = {
        "images": len(subject.images),
        "epochs": getattr(config, "epochs", None),
        "first_s": time.perf_counter() - start,
        "first_compile_s": COMPILES.seconds - compiling,
        "seconds": None,
    }
    times = []
    for _ in range(subject.options.fit_repeats):
        start = time.perf_counter()
        fit_once()
        times.append(time.perf_counter() - start)
    if times:
        found["seconds"] = summary(times)
    return found, fitted


def scoring(subject: Subject, batch_size: int) -> dict:
    """The compiled scoring step: one batch at a time, and batches in flight as `score` has them.

    A single image is scored on one device.
    """
    options = subject.options
    local = subject.parallel.local
    parallel = Parallel(local[:1]) if batch_size == 1 else subject.parallel.here()
    size = parallel.batch_size(batch_size)
    step = scoring_step(subject.detector.compile_key(), tuple(parallel.devices))
    placed = place(subject.detector, subject.variables, parallel)
    batch = next(iter(subject.images.batches(size)))
    direct = scoring_step(in_xla_form(subject.detector), tuple(parallel.devices))
    found = build(
        step, *placed, parallel.split(batch.images), direct=direct,
        counted=_unpadded(subject, placed, parallel.split(batch.images)),
    )  # fmt: skip
    memory.check_program(found["temporary_bytes"], parallel)

    def run(batch):
        return step(*placed, parallel.split(batch.images))

    def one_at_a_time(count):
        for _ in range(count):
            jax.block_until_ready(run(batch))

    def flowing(count):
        for result, _ in in_flight(run, itertools.repeat(batch, count)):
            jax.block_until_ready(result)

    alone = measure({"step": one_at_a_time}, options.repeats)["step"]
    together = measure({"step": flowing}, options.repeats, options.least_seconds)["step"]
    return {
        **found,
        "batch_size": size,
        "devices": parallel.count,
        "latency_s": summary(alone.wall),
        **rates(together, size, found["flops"]),
    }


def _unpadded(subject: Subject, placed: tuple, images: Any) -> tuple:
    """Arguments of the scoring step without rows that only pad the memory: no work is due to them.

    Where devices hold parts of the memory, as they are.
    """
    if len(placed) > 1:
        return *placed, images
    return subject.detector.trim_memory(subject.variables), images


def end_to_end(subject: Subject) -> dict:
    """`score` of all images: batches made, scores and maps brought back to the host."""

    def call(count):
        for _ in range(count):
            score(
                subject.detector, subject.variables, subject.images, subject.parallel,
                subject.batch_size,
            )  # fmt: skip

    samples = measure({"score": call}, subject.options.repeats)["score"]
    seconds = summary(samples.wall)
    return {
        "images": len(subject.images),
        "seconds": seconds,
        "images_per_s": len(subject.images) / seconds["median"],
    }
