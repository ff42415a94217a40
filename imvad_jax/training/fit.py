"""Fits a detector: its phases in order, one loop for all methods."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import core

from imvad_jax.data.batches import Images
from imvad_jax.errors import UserError
from imvad_jax.methods.base import Detector
from imvad_jax.training.gradient import gradient_phase
from imvad_jax.training.job import Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.statistics import statistics_phase

_PHASES = {"statistics": statistics_phase, "gradient": gradient_phase}


def init_variables(detector: Detector, backbone: dict | None, seed: int) -> dict:
    """Variables before the fit: pretrained backbone, fixed random draws, first parameters.

    `backbone`: collections `params` and `batch_stats`, or None for a method without one.
    """
    key = jax.random.key(seed)
    memory = detector.apply({}, jax.random.fold_in(key, 0), method="init_memory")
    variables = {"backbone": backbone} if backbone else {}
    if memory:
        variables["memory"] = memory
    if "gradient" in detector.phases:
        init = _init_parameters(detector.compile_key())
        variables |= init(variables, jax.random.fold_in(key, 2))
    return detector.start(variables)


@functools.lru_cache(maxsize=64)
def _init_parameters(detector: Detector):
    """The compiled `(variables, key) -> {params, batch_stats}`, shared by all categories."""
    size = detector.config.input_size

    def touch(scope):
        detector.clone(parent=scope).init_parameters(jnp.zeros((1, size, size, 3)))

    # As `linen.init`, which takes no variables: batch norms leave their statistics as they start.
    # So under jit nothing that the parameters do not depend on is computed, the forward included.
    apply = core.apply(touch, mutable=["params", "batch_stats"], flags={"initializing": True})

    @jax.jit
    def init(variables, key):
        first, second = jax.random.split(key)
        return apply(variables, rngs={"params": first, "noise": second})[1]

    return init


def fit(
    detector: Detector,
    variables: dict,
    images: Images,
    parallel: Parallel,
    seed: int = 0,
    *,
    phases: Sequence[str] | None = None,
    **options,
) -> dict:
    """Runs the phases of `detector` on good images and returns its fitted variables.

    `phases` are those to run, all by default. `options` are further fields of `Job`: `progress`,
    `timings`, `checkpoints`, `on_epoch`, `limit`, `training_loop`.

    Raises:
      UserError: there are no images, one cannot be read, or the training diverged.
    """
    if not len(images):
        raise UserError("there are no good images to fit on")
    job = Job(images, parallel, seed, **options)
    for phase in detector.phases if phases is None else phases:
        variables = _PHASES[phase](detector, variables, job)
    return {k: v for k, v in variables.items() if k not in detector.config.picture_dirs}
