"""anomalib and our program as whole processes on the same files, run in turn.

PaDiM and PatchCore are compared stage by stage, with decoded images deleted before (cold) and kept
(warm); trained methods by whole fits of a few epochs.
"""

import shutil
import time
from collections.abc import Callable

import jax

from imvad_jax.benchmarks.anomalib_figures import (
    COLD,
    FIRST,
    THEIRS,
    WARM,
    Runs,
    collect,
    collect_fits,
)
from imvad_jax.benchmarks.anomalib_plan import make_plan
from imvad_jax.benchmarks.anomalib_processes import Programs, Request, find_anomalib
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError, say
from imvad_jax.progress import silent_progress
from imvad_jax.training.job import as_float, in_flight


def compare(subject: Subject, request: Request, log=say, progress=silent_progress) -> dict:
    """`{versions, threads, images, driver, notes, programs, parts}`: `driver` is what it was asked
    for, `notes` say what differs, the last two are those of `collect`, or for a trained method of
    `collect_fits`, with its `epochs`. A process that fails in a later repeat leaves the repeats
    before it and an `error`.

    Raises:
      UserError: there is no such work in anomalib, or a process failed; its last line is named.
    """
    detector = subject.detector
    plan = make_plan(request, detector, subject.parallel.local[0].platform)
    programs = Programs(request, plan.arguments, plan.epochs)
    find_anomalib(request.python)
    runs = {FIRST: [programs.ours(cold=True)]}
    data = open_category(
        "mvtec_ad", request.data_dir, request.category,
        Geometry.of(detector.config),
        str(programs.cache / "decoded"), seed=request.seed,
    )  # fmt: skip
    steps: dict[str, Callable[[], dict]] = {WARM: programs.ours, THEIRS: programs.theirs}
    if plan.epochs:
        forward = None
    else:
        forward = forward_call(subject, data)
        forward()  # compiles
        steps = {COLD: lambda: programs.ours(cold=True)} | steps
    runs |= {name: [] for name in steps}
    done = progress(request.repeats * len(steps), "whole processes")
    forwards, stopped = [], {}
    try:
        for number in range(1, request.repeats + 1):
            if forward:
                forwards.append(forward())
            for name, step in steps.items():
                runs[name].append(step())
                log(f"{name}, {number} of {request.repeats}: {runs[name][-1]['process_s']:.1f} s")
                done(1)
    except UserError as error:
        if not runs[THEIRS]:
            raise
        log(f"note: {error.text}; the repeats before are kept")
        stopped["error"] = error.text
    images = [len(data.train), len(data.test)]
    if programs.others["images"] != images:
        raise UserError(
            f"--compare=anomalib: it read {programs.others['images']} images for fit and test of "
            f"{request.category}, ours {images}"
        )
    if plan.epochs:
        _check_steps(runs)
    if not stopped:
        shutil.rmtree(programs.directory)
    found = {**programs.others, **stopped, "driver": plan.arguments, "notes": list(plan.notes)}
    if plan.epochs:
        return found | collect_fits(runs, plan.epochs)
    return found | collect(runs, forwards, sum(images))


def _check_steps(runs: Runs) -> None:
    """Raises UserError where the trainings were not of as many steps."""
    ours, theirs = runs[WARM][-1]["steps"], runs[THEIRS][-1]["steps"]
    if ours != theirs:
        raise UserError(
            f"--compare=anomalib: it took {theirs} steps per epoch, ours {ours}; leave out "
            "--steps_per_epoch, or give fewer than all images make"
        )


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
