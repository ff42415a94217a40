"""What every method's training in plain PyTorch is."""

from typing import Any

import torch
from jax import Array
from torch import Tensor

from imvad_jax.backbones import resnet
from imvad_jax.benchmarks.torch_networks.frozen import Frozen
from imvad_jax.benchmarks.torch_networks.layers import Converter, Layers, leaves
from imvad_jax.methods.base import Detector, TrainedConfig


class Network:
    """A method's loss, with our parameters.

    A method gives `frozen` and `loss_of`, or `loss`. A batch is a tree of tensors: `images`
    `[B, 3, H, W]`, or `kept`, what our `frozen` gave, and what `draw` drew.
    """

    in_its_favour = ""  # what our step does and this one does not, a sentence

    def __init__(
        self, detector: Detector, variables: dict, teacher: Frozen | None, device: torch.device
    ):
        self.config, self.teacher, self.device = detector.config, teacher, device
        convert = Converter(device)
        self.params = self.convert(convert, variables["params"])
        self.stats = convert(variables.get("batch_stats", {}))
        self.memory = convert.memory(variables.get("memory", {}))
        self.leaves = [leaf.requires_grad_() for leaf in leaves(self.params)]

    @classmethod
    def keeps(cls, config: TrainedConfig) -> bool:
        """Whether there is something that training does not change and that may be kept."""
        return True

    @staticmethod
    def missing(detector: Detector) -> str:
        """What of these settings is not built here; empty where all is."""
        return ""

    @staticmethod
    def draw(module: Detector, images: Array) -> dict[str, Array]:
        """What our loss draws for float images `[B, H, W, 3]`; called through `apply`.

        Where `images` is among it, that takes their place.
        """
        return {}

    def convert(self, convert: Converter, params: dict) -> dict:
        """The parameters as tensors."""
        return convert(params)

    @property
    def trained(self) -> Layers:
        """The trained layers."""
        return Layers(self.params, self.stats)

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The loss `[]` of a batch."""
        if "kept" in batch:
            return self.loss_of(batch["kept"], batch)
        with torch.no_grad():
            inputs = self.frozen(batch["images"])
        return self.loss_of(inputs, batch)

    def frozen(self, images: Tensor) -> Any:
        """As our `Detector.frozen`, in PyTorch's layout."""
        return self.teacher.features(images)

    def loss_of(self, inputs: Any, batch: dict[str, Any]) -> Tensor:
        """The loss `[]` of what `frozen` gives."""
        raise NotImplementedError


def normalised(images: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1] as ResNets expect them."""
    mean, std = (
        torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (resnet.MEAN, resnet.STD)
    )
    return (images - mean) / std


def trained_resnet_missing(detector: Detector) -> str:
    """As `Network.missing`, of a backbone that is trained."""
    name = detector.config.backbone
    return "" if "resnet" in name else f"a trained {name} (a ResNet is)"
