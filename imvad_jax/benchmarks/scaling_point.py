"""Measures one point of a scaling curve, such as a method at one number of images."""

import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np

from imvad_jax import presets
from imvad_jax.benchmarks import workloads
from imvad_jax.benchmarks.measure import peak_memory
from imvad_jax.data.batches import Batch, Numbers, padded_order
from imvad_jax.methods import Detector
from imvad_jax.methods.base import round_up
from imvad_jax.methods.patchcore import BANK_BUCKET, PatchCore
from imvad_jax.model.make import assemble
from imvad_jax.runs import memory
from imvad_jax.runs.record import environment
from imvad_jax.training.fit import fit, init_variables

CPU_BATCH = 4  # against a large bank an image takes half a second and more there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What is measured."""

    method: str
    preset: str
    overrides: dict[str, str]
    weights: str
    seed: int
    repeats: int
    least_seconds: float
    fit_repeats: int
    axis: str = ""  # of AXES; empty in a template, which stands for all points of a method
    value: int = 0


class DrawnImages:
    """Noise `[N, size, size, 3]` that is drawn as it is asked for: no image is held."""

    def __init__(self, numbers: Numbers, size: int, seed: int):
        self.numbers, self.size, self.seed = np.asarray(numbers, int), size, seed

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, numbers):
        return DrawnImages(self.numbers[np.asarray(numbers, int)], self.size, self.seed)

    def batches(self, batch_size: int, order: Numbers | None = None) -> Iterator[Batch]:
        shape = (self.size, self.size, 3)
        for index in padded_order(len(self), batch_size, order).reshape(-1, batch_size):
            images = np.zeros((batch_size, *shape), np.uint8)
            for row in np.flatnonzero(index >= 0):
                rng = np.random.default_rng([self.seed, int(self.numbers[index[row]])])
                images[row] = rng.integers(0, 256, shape, np.uint8)
            yield Batch(images, index >= 0, index)


def fit_to(subject: workloads.Subject, value: int) -> dict:
    """The whole fit on so many images, which none but a batch of lie in memory."""
    size = subject.detector.config.input_size
    subject.images = DrawnImages(range(value), size, subject.seed)
    parts = {"program": memory.PROGRAM_BYTES}
    parts |= subject.detector.memory_estimate(value, subject.parallel.count)
    memory.check(parts, memory.available_bytes(subject.parallel.local[0]))
    found, _ = workloads.fit_times(subject)
    seconds = found["seconds"]["median"] if found["seconds"] else found["first_s"]
    return {"fit": found, "seconds": seconds, "images_per_s": value / seconds}


def score_bank(subject: workloads.Subject, value: int) -> dict:
    """Scoring against a bank of so many drawn patches (rounded up as a fitted one is)."""
    config = subject.detector.config
    rng = np.random.default_rng(subject.seed)
    shape = (round_up(value, BANK_BUCKET), subject.detector.dim)
    drawn = {
        "bank": rng.standard_normal(shape, np.float32),
        "bank_count": np.int32(value),
        "center": np.zeros(subject.detector.dim, np.float32),
    }
    memory_ = subject.variables.get("memory", {})
    subject.variables = subject.variables | {"memory": memory_ | drawn}
    on_cpu = subject.parallel.local[0].platform == "cpu"
    return _scored(subject, min(config.batch_size, CPU_BATCH) if on_cpu else config.batch_size)


def score_on(subject: workloads.Subject, value: int) -> dict:
    """Scoring on so many devices; trained methods as they start, which takes as long."""
    detector, parallel = subject.detector, subject.parallel
    phases = [phase for phase in detector.phases if phase != "gradient"]
    subject.variables = fit(
        detector, subject.variables, subject.images, parallel, subject.seed, phases=phases
    )
    return _scored(subject, subject.batch_size)


def _scored(subject: workloads.Subject, batch_size: int) -> dict:
    found = workloads.scoring(subject, subject.parallel.batch_size(batch_size))
    return {"scoring": found, "seconds": found["step_s"]["median"]} | {
        key: found[key] for key in ("images_per_s", "batch_size")
    }


AXES: dict[str, tuple[Callable[[workloads.Subject, int], dict], Callable[[Detector], bool]]] = {
    "images": (fit_to, lambda detector: "gradient" not in detector.phases),
    "bank": (score_bank, lambda detector: isinstance(detector, PatchCore)),
    "devices": (score_on, lambda detector: True),
}
"""What is measured of a subject at a value, and of which methods."""


def point(request: Request, parallel) -> dict:
    """The figures of one point: `{value, seconds, images_per_s, devices, memory, ...}`.

    Raises:
      UserError: bad weights, or more memory is needed than there is.
    """
    config = presets.resolve(request.method, request.preset, request.overrides)
    model = assemble(request.method, config, request.weights, request.seed)
    detector, first = model.detector, model.variables.get("backbone")
    images = workloads.random_images(config.batch_size, config.input_size, request.seed)
    options = workloads.Options(
        repeats=request.repeats, least_seconds=request.least_seconds,
        fit_repeats=request.fit_repeats,
    )  # fmt: skip
    subject = workloads.Subject(
        detector=detector, variables=init_variables(detector, first, request.seed),
        images=images, parallel=parallel, seed=request.seed, options=options,
    )  # fmt: skip
    found = AXES[request.axis][0](subject, request.value)
    platform, machine = parallel.local[0].platform, environment(parallel)
    # How many devices is said apart, and differs from point to point.
    machine["hardware"] = machine["hardware"].removesuffix(f", {parallel.count} JAX devices")
    return {
        "value": request.value,
        **found,
        "devices": parallel.count,
        "virtual": platform == "cpu" and parallel.count > (os.cpu_count() or 1),
        "memory": peak_memory(parallel.local),
        "platform": platform,
        **machine,
    }
