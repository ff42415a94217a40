"""FastFlow's flows in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.torch_networks.layers import Layers
from imvad_jax.layers.coupling import SOFTPLUS_BETA, SUBNET_FACTOR


class FastFlow(Network):
    """The negative log-likelihood of the normalised features."""

    def loss_of(self, inputs, drawn):
        total = 0.0
        for name, x in inputs.items():
            norm, flow = self.params[f"norms_{name}"], self.trained[f"flows_{name}"]
            x, log_det = F.layer_norm(x, x.shape[1:], norm["scale"], norm["bias"]), 0.0
            for number, permutation in enumerate(self.memory[f"permutations_{name}"]):
                x, more = self.coupled(x, flow[f"step_{number}"], permutation)
                log_det = log_det + more
            total = total + (0.5 * (x**2).sum((1, 2, 3)) - log_det).mean()
        return total

    def coupled(self, x: Tensor, step: Layers, permutation: Tensor) -> tuple[Tensor, Tensor]:
        """One step of a flow and its log-determinant `[B]`."""
        active, p = x.shape[1] // 2, step.params
        passive, moved = x[:, : x.shape[1] - active], x[:, x.shape[1] - active :]
        hidden = F.relu(step["subnet"].conv(passive, "conv1"))
        y = SUBNET_FACTOR * step["subnet"].conv(hidden, "conv2")
        log_scale = self.config.clamp * torch.tanh(y[:, :active])
        x = torch.cat([passive, moved * torch.exp(log_scale) + y[:, active:]], 1)
        scale = 0.1 * F.softplus(p["global_scale"], beta=SOFTPLUS_BETA)
        x = x * scale.view(-1, 1, 1) + p["global_offset"].view(-1, 1, 1)
        positions = math.prod(x.shape[2:])
        return x[:, permutation], log_scale.sum((1, 2, 3)) + positions * torch.log(scale).sum()
