"""CFA's descriptor and its loss in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import torch
import torch.nn.functional as F
from torch import Tensor

from imvad_jax.benchmarks.torch_networks.base import Network


class CFA(Network):
    """Attraction and repulsion of patches by their nearest centres.

    The neighbours are found without gradients, as in ours. The official code differentiates all
    distances of a patch to all centres, which takes longer. Kept features are those of ours, each
    layer at its own size, and are enlarged here in every step.
    """

    def frozen_features(self, images):
        maps, parts = list(self.teacher.features(images).values()), []
        for x in maps:
            parts.append(F.avg_pool2d(F.leaky_relu(x, 0.01), 3, 1, 1))
        return stacked(parts)

    def loss_of(self, inputs, drawn):
        config, centers = self.config, self.memory["centers"]
        inputs = inputs if isinstance(inputs, Tensor) else stacked(inputs)  # kept by ours
        described = self.trained["descriptor"].conv(with_coordinates(inputs), "conv")
        patches = described.permute(0, 2, 3, 1).flatten(1, 2)
        near = config.num_neighbors + config.num_negatives
        with torch.no_grad():
            chosen = torch.stack([nearest(rows, centers, near) for rows in patches])
        squared = torch.stack(
            [((patches - centers[chosen[..., k]]) ** 2).sum(-1) for k in range(near)]
        )
        radius = self.params["hyperspheres"]["radius"] ** 2
        attraction = F.relu(squared[: config.num_neighbors] - radius).mean()
        repulsion = F.relu(radius - squared[config.num_neighbors :] - config.alpha).mean()
        return (attraction + repulsion) / config.nu


def stacked(maps: list[Tensor]) -> Tensor:
    """Maps `[B, C, h, w]`, enlarged to the first one's size, one after the other."""
    grid = maps[0].shape[2:]
    return torch.cat(
        [x if x.shape[2:] == grid else F.interpolate(x, grid, mode="bilinear") for x in maps], 1
    )


def with_coordinates(x: Tensor) -> Tensor:
    """Maps `[B, C, h, w]` with row and column, each from -1 to 1, appended."""
    rows, columns = (torch.linspace(-1, 1, n, device=x.device) for n in x.shape[2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([x, grid.expand(len(x), -1, -1, -1)], 1)


def nearest(rows: Tensor, centers: Tensor, k: int) -> Tensor:
    """Numbers `[P, k]` of the nearest of `[M, D]` centres, the nearest first."""
    origin = centers.mean(0)  # expansion cancels unless both sides are centred
    rows, centers = rows - origin, centers - origin
    expanded = torch.addmm((centers**2).sum(1), rows, centers.T, alpha=-2)
    return expanded.topk(k, 1, largest=False).indices
