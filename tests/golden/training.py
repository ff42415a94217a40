"""Training steps of a method as a fit runs them, on batches whose losses are golden."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imvad_jax.data.batches import ArrayImages
from imvad_jax.training.gradient import fixed_part, init_state, training_key, training_step
from imvad_jax.training.job import Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.statistics import statistics_phase

DEVICES = (jax.devices()[0],)
STEPS = 1_000_000  # in all: no golden training comes to where a schedule begins


class Trained(NamedTuple):
    """What some training steps gave; arrays of the host."""

    metrics: list[dict]  # of each step: `loss` and the method's own
    gradients: dict  # of the first step, clipped where the method clips
    states: list[dict]  # after each step: `params`, `batch_stats`

    def figure(self, name: str) -> np.ndarray:
        """A figure of all steps."""
        return np.array([metrics[name] for metrics in self.metrics])


def kept(detector):
    """The detector as it trains on what `frozen_features` gives, computed beforehand."""
    config = dataclasses.replace(detector.config, cache_features=True)
    return detector.clone(config=config)


def train(detector, variables: dict, batches) -> Trained:
    """One step of the program of a fit on each of `batches`, from these variables."""
    config, step = detector.config, training_step(detector, DEVICES)
    state = jax.tree.map(jnp.array, init_state(config, variables, STEPS))
    fixed, metrics, states = fixed_part(variables), [], []
    for batch in batches:
        state, found = step(state, fixed, batch, training_key(0), np.int32(STEPS))
        if not states:
            moment = jax.device_get(_first_moment(state["opt_state"]))
        metrics.append(jax.device_get(found))
        states.append(jax.device_get({name: state[name] for name in ("params", "batch_stats")}))
    return Trained(metrics, _gradients(config, moment, variables["params"]), states)


def _first_moment(opt_state):
    for name in ("trace", "mu", "first"):  # sgd; adam and adamw; either with amsgrad
        if (found := optax.tree_utils.tree_get(opt_state, name)) is not None:
            return found
    raise AssertionError(f"no first moment in {opt_state}")


def _gradients(config, moment, params):
    """The gradients of the first step, from the optimiser's first moment after it."""
    share = 1 if config.optimizer == "sgd" else 1 - config.beta1
    decay = 0 if config.optimizer == "adamw" else config.weight_decay
    return jax.tree.map(lambda m, p: m / share - decay * np.asarray(p), moment, params)


def gathered(detector, variables: dict, pictures: np.ndarray) -> dict:
    """The variables after the statistics phase on uint8 images."""
    return statistics_phase(detector, variables, Job(ArrayImages(pictures), Parallel(DEVICES)))
