"""PyTorch's optimisers in optax, from a method's configuration."""

import optax

from imvad_jax.errors import UserError, choose
from imvad_jax.methods.base import TrainedConfig


def make_schedule(config: TrainedConfig, steps: int) -> optax.Schedule:
    """The learning rate by step; `steps` in all.

    Raises:
      UserError: an unknown schedule.
    """
    name = choose("--schedule", config.schedule, ("constant", "cosine"))
    if name == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, steps)
    return optax.constant_schedule(config.learning_rate)


def make_optimizer(config: TrainedConfig, steps: int) -> optax.GradientTransformation:
    """The optimiser of a gradient phase of `steps` steps.

    As in PyTorch, `weight_decay` of sgd and adam is added to the (clipped) gradient before anything
    else, that of adamw is applied to the parameters apart; sgd has no dampening and no Nesterov.

    Raises:
      UserError: an unknown optimiser, or a setting that it has not.
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
        scale = optax.scale_by_amsgrad if config.amsgrad else optax.scale_by_adam
        parts.append(scale(config.beta1, config.beta2, config.epsilon))
    if config.weight_decay and kind == "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay))
    parts.append(optax.scale_by_learning_rate(make_schedule(config, steps)))
    return optax.chain(*parts)
