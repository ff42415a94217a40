"""DRAEM's two networks and its losses in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import torch
import torch.nn.functional as F
from torch import Tensor

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.torch_networks.layers import Layers
from imvad_jax.methods.draem import FOCUS, SMOOTHING
from imvad_jax.ops.ssim import gaussian_weights

WINDOW = gaussian_weights().tolist()


class DRAEM(Network):
    """Mean squared error and 1 - SSIM of the repaired images, and the focal loss of the map."""

    @classmethod
    def keeps(cls, config):
        return False

    @classmethod
    def in_its_favour(cls, config):
        return "anomalies are drawn by ours in every step, by PyTorch in none"

    @staticmethod
    def draw(module, images):
        drawn = module.draw_anomalies(images)
        return {"images": drawn.augmented, "original": drawn.original, "mask": drawn.mask}

    def loss_of(self, inputs, drawn):
        original = drawn["original"]
        repaired = reconstructive(self.trained["reconstructive"], inputs)
        both = torch.cat([repaired, inputs], 1)
        logits = discriminative(self.trained["discriminative"], both)
        similar = ssim(repaired, original).mean()
        return F.mse_loss(repaired, original) + 1 - similar + focal_loss(logits, drawn["mask"])


def convolutions(net: Layers, x: Tensor) -> Tensor:
    """`unet.Convolutions`."""
    index = 0
    while f"conv{index}" in net:
        x = F.relu(net.normed(x, f"conv{index}", f"bn{index}"))
        index += 1
    return x


def encoded(net: Layers, x: Tensor) -> list[Tensor]:
    """The maps of an encoder by level."""
    maps = []
    while (name := f"encoder{len(maps)}") in net:
        maps.append(convolutions(net[name], F.max_pool2d(x, 2) if maps else x))
        x = maps[-1]
    return maps


def doubled(x: Tensor) -> Tensor:
    """Twice as large, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def reconstructive(net: Layers, images: Tensor) -> Tensor:
    """`unet.ReconstructiveNetwork`."""
    maps = encoded(net, images)
    x = maps[-1]
    for level in reversed(range(len(maps) - 1)):
        x = convolutions(net[f"decoder{level}"], doubled(x))
    return net.conv(x, "output")


def discriminative(net: Layers, x: Tensor) -> Tensor:
    """`unet.DiscriminativeNetwork`."""
    maps = encoded(net, x)
    x = maps[-1]
    for level in reversed(range(len(maps) - 1)):
        x = torch.cat([convolutions(net[f"up{level}"], doubled(x)), maps[level]], 1)
        x = convolutions(net[f"decoder{level}"], x)
    return net.conv(x, "output")


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Similarity of `[B, C, H, W]` by pixel. The five windows are one convolution per axis."""
    weights = torch.tensor(WINDOW, dtype=x.dtype, device=x.device)
    largest, smallest = x.detach().max(), x.detach().min()
    value_range = torch.where(largest > 128, 255.0, 1.0) + torch.where(smallest < -0.5, 1.0, 0.0)
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    stacked = torch.cat([x, y, x * x, y * y, x * y], 1)
    channels, reach = stacked.shape[1], len(weights) // 2
    for shape, padding in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
        kernel = weights.view(shape).repeat(channels, 1, 1, 1)
        stacked = F.conv2d(stacked, kernel, padding=padding, groups=channels)
    mean_x, mean_y, square_x, square_y, product = stacked.chunk(5, 1)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = 2 * (product - mean_x * mean_y) + c2
    return luminance * contrast / (square_x - mean_x**2 + square_y - mean_y**2 + c2)


def focal_loss(logits: Tensor, anomalous: Tensor) -> Tensor:
    """`draem.focal_loss` of logits `[B, 2, H, W]` and bool `[B, H, W]`."""
    probability = logits.softmax(1)
    right = torch.where(anomalous, probability[:, 1], probability[:, 0])
    right = (1 - SMOOTHING) * right + SMOOTHING * (1 - right) + SMOOTHING
    return (-((1 - right) ** FOCUS) * torch.log(right)).mean()
