"""CutPaste's classifier in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import jax
import torch
import torch.nn.functional as F

from imvad_jax.benchmarks.torch_networks.base import Network, normalised, trained_resnet_missing
from imvad_jax.benchmarks.torch_networks.frozen import RESNET_OUTPUTS


class CutPaste(Network):
    """Cross entropy of the ways in which an image was changed; the whole network is trained."""

    @classmethod
    def keeps(cls, config):
        return False

    @classmethod
    def in_its_favour(cls, config):
        return "images are augmented by ours in every step, by PyTorch in none"

    @staticmethod
    def missing(detector):
        layer = detector.config.embedding_layer
        if layer not in {*RESNET_OUTPUTS, "pool"}:
            return f"--embedding_layer={layer}"
        return trained_resnet_missing(detector)

    @staticmethod
    def draw(module, images):
        keys = module.image_keys(images.shape[0])
        ways = jax.vmap(module.augment)(keys, images)
        return {"images": ways.reshape(-1, *ways.shape[2:])}

    def loss_of(self, inputs, drawn):
        layer = self.config.embedding_layer
        x = self.trained["encoder"].resnet(normalised(inputs), (layer,))[layer]
        x = x.mean((2, 3)) if x.ndim == 4 else x
        head, number = self.trained["head"], 0
        while (name := f"linear{number}") in head:
            x = F.relu(head.norm(head.linear(x, name), f"norm{number}"))
            number += 1
        logits = head.linear(x, "classifier")
        ways = torch.arange(logits.shape[1], device=x.device).repeat(len(x) // logits.shape[1])
        return F.cross_entropy(logits, ways)
