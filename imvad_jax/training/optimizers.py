"""PyTorch's optimisers in optax, from a method's configuration."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from imvad_jax.errors import UserError, choose
from imvad_jax.methods.base import TrainedConfig


def make_schedule(config: TrainedConfig, steps: int | Array) -> optax.Schedule:
    """Returns the learning-rate schedule for `steps` steps in all, which may be a traced value.

    Raises:
      UserError: an unknown schedule, or decays outside of the training.
    """
    name = choose("--schedule", config.schedule, ("constant", "cosine", "step"))
    if name == "cosine":
        return lambda step: 0.5 * config.learning_rate * (1 + jnp.cos(jnp.pi * step / steps))
    if name == "step":
        if not all(0 <= share <= 1 for share in config.decay_at):
            raise UserError(f"--decay_at={config.decay_at}: expected shares of all steps, 0 ... 1")

        def decayed(step):
            passed = [step >= jnp.round(share * steps) for share in config.decay_at]
            return config.learning_rate * config.decay_factor ** sum(passed, jnp.zeros(()))

        return decayed
    return optax.constant_schedule(config.learning_rate)


class AmsgradState(NamedTuple):
    """Moments of `scale_by_torch_amsgrad`."""

    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    first: optax.Updates
    second: optax.Updates
    largest: optax.Updates


def scale_by_torch_amsgrad(
    beta1: float, beta2: float, epsilon: float
) -> optax.GradientTransformation:
    """AMSGrad (Reddi et al., ICLR 2018) as PyTorch implements it.

    PyTorch keeps the maximum of the second moments before their bias correction,
    `optax.scale_by_amsgrad` after it; early steps differ.
    """

    def init(params):
        zeros = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return AmsgradState(jnp.zeros((), jnp.int32), *zeros)

    def update(updates, state, params=None):
        count = state.count + 1
        first = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.first, updates)
        second = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.second, updates)
        largest = jax.tree.map(jnp.maximum, state.largest, second)
        one, two = 1 - beta1**count, 1 - beta2**count
        updates = jax.tree.map(
            lambda m, v: (m / one) / (jnp.sqrt(v / two) + epsilon), first, largest
        )
        return updates, AmsgradState(count, first, second, largest)

    return optax.GradientTransformation(init, update)


def make_optimizer(config: TrainedConfig, steps: int | Array) -> optax.GradientTransformation:
    """The optimiser of a gradient phase of `steps` steps.

    As in PyTorch, `weight_decay` of sgd and adam is added to the (clipped) gradient before anything
    else, that of adamw is applied to the parameters apart; sgd has no dampening and no Nesterov.

    Raises:
      UserError: The optimiser is unknown, or does not have a given setting.
    """
    kind = choose("--optimizer", config.optimizer, ("sgd", "adam", "adamw"))
    if config.amsgrad and kind == "sgd":
        raise UserError("--amsgrad: sgd has no such variant")
    parts = []
    if config.gradient_clip:
        parts.append(optax.clip_by_global_norm(config.gradient_clip))
    if config.weight_decay and kind != "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay))
    if kind == "sgd":
        parts.append(optax.trace(config.momentum))
    else:
        scale = scale_by_torch_amsgrad if config.amsgrad else optax.scale_by_adam
        parts.append(scale(config.beta1, config.beta2, config.epsilon))
    if config.weight_decay and kind == "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, steps)))
    return optax.chain(*parts)
