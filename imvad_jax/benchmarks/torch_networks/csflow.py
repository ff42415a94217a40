"""CS-Flow's couplings in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import torch
import torch.nn.functional as F
from torch import Tensor

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.torch_networks.layers import Layers
from imvad_jax.layers.cross_scale import ATAN_FACTOR, LARGEST, SLOPE
from imvad_jax.methods.csflow import SCALES


class CSFlow(Network):
    """The negative log-likelihood a dimension of the features at three scales."""

    def frozen_features(self, images):
        maps = []
        for step in (2**i for i in range(SCALES)):
            taken = images[:, :, ::step, ::step].contiguous(memory_format=torch.channels_last)
            maps += self.teacher.features(taken).values()
        return maps

    def loss_of(self, inputs, drawn):
        maps, log_det, number = inputs, 0.0, 0
        while (name := f"blocks_{number}") in self.params:
            permutations = [self.memory[f"permutations_{i}"][number] for i in range(SCALES)]
            maps, more = self.coupled(maps, self.trained[name], permutations)
            log_det, number = log_det + more, number + 1
        energy = 0.5 * sum((z**2).sum((1, 2, 3)) for z in maps)
        return torch.mean(energy - log_det) / sum(z[0].numel() for z in maps)

    def coupled(
        self, maps: list[Tensor], block: Layers, permutations: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """One block of maps `[B, C, h, w]` by scale, and its log-determinant `[B]`."""
        half = maps[0].shape[1] // 2
        x = [m[:, p] for m, p in zip(maps, permutations, strict=True)]
        a, b = [m[:, :half] for m in x], [m[:, half:] for m in x]
        a, log_det = self.moved(a, subnet(block["from_second"], b))
        b, more = self.moved(b, subnet(block["from_first"], a))
        joined = [torch.cat(halves, 1).clamp(-LARGEST, LARGEST) for halves in zip(a, b)]
        return joined, log_det + more

    def moved(self, maps: list[Tensor], steering: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Affine maps by scale, and the sum of their log-determinants `[B]`."""
        found, total, clamp = [], 0.0, self.config.clamp
        for x, s in zip(maps, steering, strict=True):
            log_scale, shift = s.chunk(2, 1)
            log_scale = clamp * ATAN_FACTOR * torch.atan(log_scale / clamp)
            found.append(x * torch.exp(log_scale) + shift)
            total = total + log_scale.sum((1, 2, 3))
        return found, total


def subnet(net: Layers, maps: list[Tensor]) -> list[Tensor]:
    """`cross_scale.CrossScaleSubnet` of maps by scale."""
    hidden = [F.leaky_relu(net.conv(x, f"conv1_{i}"), SLOPE) for i, x in enumerate(maps)]
    found = []
    for i, x in enumerate(hidden):
        y = net.conv(x, f"conv2_{i}")
        if i + 1 < len(hidden):
            y = y + net.conv(F.interpolate(hidden[i + 1], x.shape[2:], mode="bilinear"), f"up_{i}")
        if i:
            y = y + net.conv(hidden[i - 1], f"down_{i}", stride=2)
        found.append(y * net.params[f"gamma_{i}"])
    return found
