"""RD4AD's embedding and decoder in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import torch
import torch.nn.functional as F

from imvad_jax.benchmarks.torch_networks.base import Network


class RD4AD(Network):
    """One minus the cosine of the teacher's maps and the restored ones."""

    def frozen_features(self, images):
        found = self.teacher.features(images)
        return [found[name] for name in self.config.layers]

    def loss_of(self, inputs, drawn):
        net, fused, loss = self.trained["embedding"], [], 0.0
        for level, x in enumerate(inputs):
            for down in range(len(inputs) - level - 1):
                name = f"fuse{level}_{down}"
                x = F.relu(net.normed(x, f"{name}_conv", f"{name}_bn", 2))
            fused.append(x)
        x = F.relu(net.stack(torch.cat(fused, 1), "block", 2))
        for stage, wanted in enumerate(reversed(inputs)):
            x = F.relu(self.trained["decoder"].stack(x, f"stage{stage}_", 2))
            per_position = self.config.per_position_loss
            flat = (x, wanted) if per_position else (x.flatten(1), wanted.flatten(1))
            loss = loss + (1 - F.cosine_similarity(*flat, dim=1)).mean()
        return loss
