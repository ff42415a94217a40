"""PyTorch's optimiser from a method's configuration, with its rates by step."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import math

import torch
from torch import Tensor

from imvad_jax.methods.base import TrainedConfig
from imvad_jax.training.optimizers import make_optimizer


class Optimizer:
    """Clips the gradients, sets the rate of the step and takes it; PyTorch's fused form.

    Fused is the fastest that PyTorch has. Raises UserError as `make_optimizer`.
    """

    def __init__(self, leaves: list[Tensor], config: TrainedConfig, steps: int):
        make_optimizer(config, steps)  # refuses what it does not know
        self.leaves, self.config, self.steps, self.taken = leaves, config, steps, 0
        rate, decay = config.learning_rate, config.weight_decay
        if config.optimizer == "sgd":
            self.own = torch.optim.SGD(
                leaves, rate, config.momentum, weight_decay=decay, fused=True
            )
        else:
            kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
            betas = (config.beta1, config.beta2)
            self.own = kind(leaves, rate, betas, config.epsilon, decay, config.amsgrad, fused=True)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        config, share = self.config, step / self.steps
        if config.schedule == "cosine":
            return 0.5 * config.learning_rate * (1 + math.cos(math.pi * share))
        if config.schedule == "step":
            passed = sum(step >= round(at * self.steps) for at in config.decay_at)
            return config.learning_rate * config.decay_factor**passed
        return config.learning_rate

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        self.own.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Updates the parameters."""
        if self.config.gradient_clip:
            torch.nn.utils.clip_grad_norm_(self.leaves, self.config.gradient_clip)
        if self.config.schedule != "constant":
            for group in self.own.param_groups:
                group["lr"] = self.rate(self.taken)
        self.own.step()
        self.taken += 1
