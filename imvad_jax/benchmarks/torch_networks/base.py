"""The base class of all methods' training in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

from collections.abc import Callable
from typing import Any

import torch
from jax import Array
from torch import Tensor

from imvad_jax.backbones import resnet
from imvad_jax.benchmarks.torch_networks.frozen import Frozen
from imvad_jax.benchmarks.torch_networks.layers import Converter, Layers, leaves
from imvad_jax.methods.base import Detector


class Network:
    """A method's loss, with our parameters.

    A method gives `loss_of`, and `frozen_features` where these are not its teacher's by name.
    """

    def __init__(
        self, detector: Detector, variables: dict, teacher: Frozen | None, device: torch.device,
        wrap: Callable = lambda work: work,
    ):  # fmt: skip
        """`wrap` compiles what is frozen and what is trained, each as a whole."""
        self.config, self.device = detector.config, device
        self.teacher: Any = teacher  # asked by methods that have one
        convert = Converter(device)
        self.params = self.convert(convert, variables["params"])
        self.stats = convert(variables.get("batch_stats", {}))
        self.memory = convert.memory(variables.get("memory", {}))
        self.leaves = [leaf.requires_grad_() for leaf in leaves(self.params)]
        self._frozen, self._loss_of = wrap(self.frozen_features), wrap(self.loss_of)

    @classmethod
    def keeps(cls, config: Any) -> bool:
        """Whether there is something that training does not change and that may be kept."""
        return True

    @classmethod
    def in_its_favour(cls, config: Any) -> str:
        """What our step does and this one does not, a clause; empty: nothing."""
        return ""

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
        """The loss `[]` of a tree of tensors.

        Of `images` `[B, 3, H, W]`, or of what our `frozen_features` gave (`kept`); and of what was
        `drawn`.
        """
        if "kept" in batch:
            inputs = batch["kept"]
        elif self.teacher is None:
            inputs = batch["images"]
        else:
            with torch.no_grad():
                inputs = self._frozen(batch["images"])
        return self._loss_of(inputs, batch["drawn"])

    def frozen_features(self, images: Tensor) -> Any:
        """As our `Detector.frozen_features`, in PyTorch's layout."""
        return self.teacher.features(images)

    def loss_of(self, inputs: Any, drawn: dict[str, Tensor]) -> Tensor:
        """The loss `[]` of what `frozen_features` gives, or of images where nothing is frozen."""
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
