"""What runs on an accelerator can be lowered for it: every compiled program, for CUDA and for TPU.

Lowering needs neither. It finds operations that a platform has no rule for; what the platform's own
compiler would refuse it does not find.
"""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.interpreters import mlir

from imvad_jax import backbones, methods, presets
from imvad_jax.methods import buffers, patchcore
from imvad_jax.methods.base import round_up
from imvad_jax.ops import coreset, cutpaste, gaussian
from imvad_jax.training import epoch, features, fit, gradient, statistics
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import scoring_step
from tests.methods.small import fitted_once

PLATFORMS = ("cuda", "tpu")
ALL = sorted(methods.METHODS)
TRAINED = [m for m in ALL if "gradient" in methods.get(m).detector.phases]
GATHERING = [m for m in ALL if "statistics" in methods.get(m).detector.phases]
BOTTLE = 209  # good images of MVTec AD's bottle


def shaped(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def shapes_of(tree):
    return jax.tree.map(lambda leaf: shaped(*np.shape(leaf), dtype=leaf.dtype), tree)


def lower(program, *arguments):
    """The program lowered for each platform."""
    if not hasattr(program, "trace"):  # what pmap returns is lowered for its own devices alone
        program = jax.jit(program)
    traced = program.trace(*arguments)
    return [traced.lower(lowering_platforms=(platform,)) for platform in PLATFORMS]


def assert_shared(lowered, devices, exchange):
    """The programs are for so many devices, which exchange something by this collective."""
    for text in (program.as_text() for program in lowered):
        assert int(re.search(r"mhlo.num_partitions = (\d+)", text)[1]) == len(devices)
        assert (f"stablehlo.{exchange}" in text) == (len(devices) > 1)


def assert_exact_products(lowered):
    """Matrix products are float32 on accelerators, too, where JAX takes coarser ones by default."""
    for program in lowered:
        products = [line for line in program.as_text().splitlines() if "dot_general" in line]
        assert products and all("[HIGHEST, HIGHEST]" in line for line in products)


def devices_of(count):
    return tuple(jax.local_devices()[:count])


def split(devices, tree):
    return jax.eval_shape(Parallel(devices).split, tree)


def images_of(config, devices):
    size, parallel = config.input_size, Parallel(devices)
    count = parallel.batch_size(config.batch_size)
    return split(devices, shaped(count, size, size, 3, dtype=np.uint8))


def pretrained(detector):
    """The shapes of its backbone's variables, or None."""
    if not detector.outputs:
        return None
    return backbones.get(detector.config.backbone).variables_template(detector.outputs)


def before_the_fit(detector):
    """The shapes of its variables; nothing is drawn."""
    start = pretrained(detector)
    return jax.eval_shape(lambda backbone: fit.init_variables(detector, backbone, 0), start)


def small(method):
    """A detector of the smoke preset, and the shapes of its variables before the fit."""
    detector = methods.make(method, presets.resolve(method, "smoke", {}))
    return detector, before_the_fit(detector)


def small_fitted(method):
    """The same after the fit: how large a memory is, what was fitted says."""
    if method not in GATHERING:
        return small(method)
    detector, variables, _ = fitted_once(method)
    return detector, shapes_of(variables)


def lower_training(detector, variables, devices, loop=False):
    """The training step; or, with `loop`, the loop on the devices around it."""
    config = detector.config
    steps = shaped(dtype=np.int32)
    state = jax.eval_shape(lambda v, s: gradient.init_state(config, v, s), variables, steps)
    fixed = gradient.fixed_part(variables)
    batch = images_of(config, devices)
    if config.cache_features:
        step = features._frozen_step(detector.compile_key(), devices)
        lower(step, fixed, batch)
        batch = jax.eval_shape(step, fixed, batch)
    key = jax.eval_shape(lambda: gradient.training_key(0))
    if loop:
        one = (leaf.shape[1 + (len(devices) > 1) :] for leaf in jax.tree.leaves(batch))
        leaves, structure = jax.tree.flatten(batch)
        kept = [shaped(128, *own, dtype=leaf.dtype) for own, leaf in zip(one, leaves)]
        given = {"fixed": fixed, "key": key, "steps": steps,
                 "images": jax.tree.unflatten(structure, kept)}  # fmt: skip
        order = shaped(config.batch_size, epoch.CAPACITY, dtype=np.int32)
        program = gradient.device_loop(detector.compile_key(), devices)
        return lower(program, state, given, split(devices, order), steps)
    step = gradient.training_step(detector.compile_key(), devices)
    return lower(step, state, fixed, batch, key, steps)


def lower_statistics(detector, variables, devices, images):
    """The accumulators for so many images are made, filled and closed."""
    detector, parallel = detector.compile_key(), Parallel(devices)
    start = split(devices, shaped(parallel.count))
    empty = statistics._empty_accumulator(detector, devices, images // parallel.count)
    lower(empty, start)
    accumulator = jax.eval_shape(empty, start)
    batch = images_of(detector.config, devices)
    index = shaped(*batch.shape[:-3], dtype=np.int32)
    lower(statistics._statistics_step(detector, devices), accumulator, variables, batch, index)
    if type(detector).flush is not methods.Detector.flush:
        lower(statistics._flush(detector, devices), accumulator)


def lower_coreset(rows, width):
    some, number = shaped(rows, width), shaped(dtype=np.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    lower(coreset.draw_starts, key, number)
    starts = jax.eval_shape(coreset.draw_starts, key, number)
    lower(coreset._start, some, number, starts)
    distances, chosen = shaped(rows), shaped(rows, dtype=np.int32)
    lower(coreset._pick, some, distances, chosen, number, number)


def lower_scoring(detector, variables, devices):
    step = scoring_step(detector.compile_key(), devices)
    return lower(step, variables, images_of(detector.config, devices))


# On one device the loops below hold the steps.
@pytest.mark.parametrize(("method", "devices"), [*((method, 4) for method in TRAINED), ("stpm", 1)])
def test_training_steps(method, devices):
    # Where statistics come first, the training looks at the memory.
    first = methods.get(method).detector.phases[0]
    detector, variables = (small_fitted if first == "statistics" else small)(method)
    devices = devices_of(devices)
    assert_shared(lower_training(detector, variables, devices), devices, "all_reduce")


@pytest.mark.parametrize(("method", "devices"), [*((method, 1) for method in TRAINED), ("stpm", 4)])
def test_training_loops_on_the_devices(method, devices):
    first = methods.get(method).detector.phases[0]
    detector, variables = (small_fitted if first == "statistics" else small)(method)
    devices = devices_of(devices)
    lowered = lower_training(detector, variables, devices, loop=True)
    assert_shared(lowered, devices, "all_reduce")
    assert all("stablehlo.while" in program.as_text() for program in lowered)


@pytest.mark.parametrize("method", ALL)
def test_scoring_steps(method):
    lowered = lower_scoring(*small_fitted(method), devices_of(1))
    if method not in TRAINED:  # a network is left what JAX takes
        assert_exact_products(lowered)


def test_scoring_with_a_bank_in_parts():
    detector, variables = small_fitted("patchcore")
    detector = detector.clone(config=dataclasses.replace(detector.config, shard_bank=True))
    devices, memory = devices_of(4), dict(variables["memory"])
    bank = memory.pop("bank")
    parts = {"memory": {"bank": shaped(4, bank.shape[0] // 4, bank.shape[1])}}
    images = images_of(detector.config, devices)
    variables = variables | {"memory": memory}
    lowered = lower(scoring_step(detector, devices), variables, parts, images)
    assert_shared(lowered, devices, "all_gather")


@pytest.mark.parametrize("method", GATHERING)
def test_gathering_statistics(method):
    lower_statistics(*small(method), devices_of(1), buffers.IMAGE_BUCKET)


def test_products_of_places_are_exact():
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert_exact_products(lower(jax.jit(cutpaste.scar), key, shaped(64, 64, 3)))


def test_what_is_computed_from_the_statistics():
    lower_coreset(rows=buffers.IMAGE_BUCKET * 64, width=32)
    moments = gaussian.Moments(shaped(), shaped(300, 32), shaped(300, 32, 32))
    lower(gaussian.merge_moments, moments, moments)
    lower(gaussian._whitening, moments.scatter, moments.count, shaped())


@pytest.mark.parametrize("method", TRAINED)
def test_first_parameters(method):
    detector, variables = small(method)
    given = {"backbone": pretrained(detector), "memory": variables.get("memory")}
    given = {name: value for name, value in given.items() if value}
    key = jax.eval_shape(lambda: jax.random.key(0))
    lower(fit._init_parameters(detector.compile_key()), given, key)


@pytest.mark.parametrize(("dtype", "devices"), [("float32", 4), ("bfloat16", 1)])
def test_a_trained_method_of_official_size(dtype, devices):
    detector = methods.make("stpm", presets.resolve("stpm", "official", {"dtype": dtype}))
    variables, devices = before_the_fit(detector), devices_of(devices)
    assert_shared(lower_training(detector, variables, devices), devices, "all_reduce")
    lower_scoring(detector, variables, devices)


def test_a_memory_method_of_official_size():
    detector = methods.make("patchcore", presets.resolve("patchcore", "official", {}))
    config, devices = detector.config, devices_of(4)
    variables = before_the_fit(detector)
    images = round_up(BOTTLE, buffers.IMAGE_BUCKET)
    lower_statistics(detector, variables, devices, images)
    lower_coreset(images * detector.kept, config.projection_dim)
    memory = {
        "bank": shaped(
            round_up(detector.bank_rows(BOTTLE), patchcore.BANK_BUCKET), config.embedding_dim
        ),
        "bank_count": shaped(dtype=np.int32),
        "center": shaped(config.embedding_dim),
    }
    lower_scoring(detector, variables | {"memory": memory}, devices)


def test_what_a_platform_has_no_rule_for_is_found():
    only = Primitive("only_on_the_cpu")
    only.def_abstract_eval(lambda x: x)
    mlir.register_lowering(only, lambda context, x: [x], platform="cpu")
    with pytest.raises(NotImplementedError, match="only_on_the_cpu.*cuda"):
        lower(jax.jit(only.bind), shaped(3))
