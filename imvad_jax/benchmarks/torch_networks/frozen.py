"""Frozen feature extractors in plain PyTorch, from our variables: ResNets and VGG-16."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from imvad_jax.backbones import vgg
from imvad_jax.backbones.resnet import MEAN, STD
from imvad_jax.benchmarks.torch_networks.layers import Converter, Layers, in_unit_range, nchw

STAGES = ("layer1", "layer2", "layer3", "layer4")
RESNET_OUTPUTS = {*STAGES, *(f"{name}_pre" for name in STAGES)}


def is_resnet(name: str, params: dict, outputs: tuple[str, ...]) -> bool:
    """Whether `ResNet` gives these outputs of the backbone of that name."""
    return "layer1_0" in params and "resnet" in name and RESNET_OUTPUTS.issuperset(outputs)


def build(
    name: str, variables: dict, outputs: tuple[str, ...], device: torch.device
) -> "Frozen | None":
    """The frozen backbone of that name, or None where it is not built here."""
    if is_resnet(name, variables.get("params", {}), outputs):
        return ResNet(variables, outputs, device)
    if name == "vgg16":
        return VGG(variables, outputs, device)
    return None


class Frozen:
    """What a feature extractor has in common; `maps` gives its outputs of normalised images."""

    def __init__(self, variables: dict, outputs: tuple[str, ...], device: torch.device):
        convert = Converter(device)
        self.params = convert(variables["params"])
        self.stats = convert(variables.get("batch_stats", {}))
        self.outputs, self.device = tuple(outputs), device
        self.mean, self.std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (MEAN, STD))

    def __call__(self, images: np.ndarray) -> dict[str, Tensor]:
        """Feature maps by name of uint8 images `[B, H, W, 3]` in host memory."""
        return self.features(nchw(images, self.device))

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """As a call, of images `[B, 3, H, W]` on the device, uint8 or float32 in [0, 1]."""
        return self.maps(self.normalised(images))

    def normalised(self, images: Tensor) -> Tensor:
        """What the network was trained on."""
        return (in_unit_range(images) - self.mean) / self.std

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Feature maps by name of normalised images."""
        raise NotImplementedError


class ResNet(Frozen):
    """`layer1` ... `layer4`, and each as the sum before its last ReLU."""

    def maps(self, x):
        return Layers(self.params, self.stats, train=False).resnet(x, self.outputs)


class VGG(Frozen):
    """The convolutional part of VGG-16."""

    def maps(self, x):
        net, found, index = Layers(self.params, {}), {}, 0
        wanted = {vgg.ALIASES.get(name, name) for name in self.outputs}
        for _, convolutions in vgg.STAGES:
            for _ in range(convolutions):
                found[f"relu{index + 1}"] = x = F.relu(net.conv(x, f"features_{index}"))
                index += 2
                if wanted <= found.keys():
                    return self._named(found)
            found[f"pool{index}"] = x = F.max_pool2d(x, 2)
            index += 1
        return self._named(found)

    def _named(self, found):
        return {name: found[vgg.ALIASES.get(name, name)] for name in self.outputs}
