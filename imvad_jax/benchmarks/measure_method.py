"""The benchmark of one method: its measurements, their order, and its record."""

import dataclasses
from collections.abc import Callable

import jax

from imvad_jax.benchmarks import profiling, workloads
from imvad_jax.benchmarks.measure import OtherLoad, peak_memory
from imvad_jax.benchmarks.report import BUSY
from imvad_jax.data.batches import Images
from imvad_jax.errors import UserError, say
from imvad_jax.methods.base import TrainedConfig
from imvad_jax.model import Model, store
from imvad_jax.model.inputs import read_picture_dirs
from imvad_jax.progress import silent_progress
from imvad_jax.runs import memory
from imvad_jax.runs.record import environment
from imvad_jax.training.fit import init_variables
from imvad_jax.training.limit import NO_LIMIT, Limit, Stopped
from imvad_jax.training.parallel import Parallel

# Of what is known of a model.
_ABOUT = ("method", "title", "preset", "overrides", "config", "seed", "weights")


def benchmark(
    model: Model,
    images: Images,
    options: workloads.Options,
    *,
    comparisons: dict[str, Callable[[workloads.Subject], dict]] | None = None,
    command: str = "",
    log=say,
    progress=silent_progress,
    limit: Limit = NO_LIMIT,
) -> dict:
    """Measures the method of an unfitted model on its devices; returns the record of it.

    Trained methods are fitted for one epoch unless `model.overrides` names `epochs`. What there is
    no time or no memory for is named in `left`, and nothing is measured after it.

    Args:
      model: Says method, configuration, weights and devices.
      images: To fit on and to score.
      options: How long is measured, and what besides.
      comparisons: What else measures the same work, by name.
      command: For the record.
      log: Takes lines for a person.
      progress: Shows the fits.
      limit: Larger batches are not scored that are not expected to end within it.

    Raises:
      UserError: bad input, or more memory is needed than there is.
    """
    others = OtherLoad()
    if isinstance(model.config, TrainedConfig) and "epochs" not in model.overrides:
        model = model.with_fields(epochs=1)
    pictures, sources = read_picture_dirs(model.config)
    detector, config, parallel = model.detector, model.config, model.devices
    log(_check_memory(detector, images, parallel, pictures))
    first = init_variables(detector, model.variables.get("backbone"), model.seed)
    subject = workloads.Subject(
        detector=detector, variables=first | pictures, images=images, parallel=parallel,
        seed=model.seed, options=options,
    )  # fmt: skip
    about = store.describe(model)
    # Times do not depend on weights being random.
    notes = [note for note in about["notes"] if "RANDOM" not in note]
    record = {
        **{key: about[key] for key in _ABOUT},
        "notes": [*notes, *sources],
        **environment(parallel),
        "platform": parallel.local[0].platform,
        "command": command,
        "images": len(images),
        "product": workloads.product_rate(parallel, getattr(config, "dtype", "float32"), options),
    }
    unfitted = dataclasses.replace(subject)
    if "gradient" in detector.phases:
        started = dataclasses.replace(subject, variables=workloads.before_training(subject))
        log("measuring the training step ...")
        record["training"] = workloads.training(started)
        if options.kept_features:
            log("measuring the training step with kept and with recomputed features ...")
            record["kept_features"] = workloads.kept_features(started)
        del started
    log("measuring the fit ...")
    record["fit"], subject.variables = workloads.fit_times(subject, progress)
    if "bank_count" in subject.variables.get("memory", {}):
        record["bank_rows"] = int(subject.variables["memory"]["bank_count"])
    log("measuring the scoring ...")
    record["scoring"], left = _scoring(subject, limit, record["notes"])
    if left:
        record["left"] = left
    record["end_to_end"] = None if left else workloads.end_to_end(subject)
    record["memory"] = peak_memory(parallel.local)
    if options.profile:
        directory = options.profile / model.method
        record["profile"] = profiling.profile(unfitted, subject, directory, log)
    record["compare"] = {}
    subject.variables = subject.variables | pictures  # a fit keeps none
    for name, compare in ({} if left else comparisons or {}).items():
        log(f"comparing, in turn: {name} ...")
        try:
            record["compare"][name] = compare(subject)
        except UserError as error:  # what was measured before stays
            log(f"note: {error.text}")
            record["compare"][name] = {"error": error.text, "parts": {}}
    share = others.share()
    record["others_share"] = share
    if share is not None and share > BUSY:
        log(f"note: other processes used {share:.0%} of the machine meanwhile; these figures are "
            "not for publication")  # fmt: skip
    return record


def _scoring(subject: workloads.Subject, limit: Limit, notes: list[str]) -> tuple[list[dict], str]:
    """The scoring at each batch size, and why there is no time for the larger ones, if so.

    Those that there is no memory for are named in `notes`.
    """
    sizes = subject.options.score_batches or tuple(dict.fromkeys((1, subject.batch_size)))
    found, took = [], 0.0
    for number, size in enumerate(sizes):
        start = limit.clock()
        # A larger batch takes longer by as much, but for what is compiled at first.
        expected = took * size / sizes[number - 1] if number > 1 else took
        try:
            limit.require(expected, f"scoring at {size}")
            found.append(workloads.scoring(subject, size))
        except Stopped as stopped:
            if not found:
                raise
            return found, str(stopped)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            if not found:
                raise
            notes.append(f"scoring at {size}: {str(error).splitlines()[0][:200]}")
            break
        took = limit.clock() - start
    return found, ""


def _check_memory(detector, images: Images, parallel: Parallel, pictures: dict) -> str:
    size = detector.config.input_size
    parts = {
        "program": memory.PROGRAM_BYTES,
        "decoded images": len(images) * size**2 * 3,
        "anomaly maps": len(images) * size**2 * 4,
        "pictures": sum(x.nbytes for x in jax.tree.leaves(pictures)) * (1 + parallel.count),
        "kept features": memory.kept_features_bytes(detector, len(images)),
        **detector.memory_estimate(len(images), parallel.count),
    }
    return memory.check(parts, memory.available_bytes(parallel.local[0]))
