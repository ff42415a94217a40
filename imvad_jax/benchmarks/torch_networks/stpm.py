"""STPM's student in plain PyTorch."""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import torch.nn.functional as F

from imvad_jax.benchmarks.torch_networks.base import Network, normalised, trained_resnet_missing
from imvad_jax.benchmarks.torch_networks.layers import in_unit_range


class STPM(Network):
    """The student's distance to the teacher's unit vectors."""

    @staticmethod
    def missing(detector):
        return trained_resnet_missing(detector)

    def frozen_features(self, images):
        return in_unit_range(images), self.teacher.features(images)

    def loss_of(self, inputs, drawn):
        (images, teacher), loss = inputs, 0.0
        student = self.trained["student"].resnet(normalised(images), self.config.layers)
        for name in self.config.layers:
            a, b = F.normalize(teacher[name], dim=1), F.normalize(student[name], dim=1)
            loss = loss + ((a - b) ** 2).sum(1).mean()
        return loss * (self.config.batch_size / 2 if self.config.summed_loss else 1)
