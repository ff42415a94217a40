"""FastFlow: 2-D normalising flows on the features of a frozen network.

Yu, Zheng, Wang, Li, Wu, Zhao, Wu, "FastFlow: Unsupervised Anomaly Detection and Localization via
2D Normalizing Flows", 2021, arXiv 2111.07677. There is no official code; this follows
gathierry/FastFlow, as open-iad and anomalib do.

What it learns: A normalising flow for each of several layers of a frozen network, with
convolutions, that turns the features of good images into a standard normal distribution. Each
position is as anomalous as it is unlikely, averaged over the layers.

When to use it: A map is needed at a constant time per image, whatever the number of good images,
and there is time to train for hundreds of epochs.

When not: There is only a short training: with the 20 epochs of the preset `cpu` its maps stay below
those of PaDiM, which fits in seconds. Large defects spread over the map (LayerNorm over whole
feature maps).
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from imvad_jax.errors import UserError
from imvad_jax.layers import coupling, norm
from imvad_jax.methods import base
from imvad_jax.ops import resample
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total


@dataclasses.dataclass(frozen=True)
class FastFlowConfig(base.TrainedConfig):
    """Settings of FastFlow, names as in the common code."""

    crop_size: int = 0
    # Backbone layers; each one gets a flow of its own.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # Number of coupling steps per flow.
    flow_steps: int = 8
    # Use 3x3 kernels in all subnets; otherwise 3x3 and 1x1 kernels alternate from step to step.
    conv3x3_only: bool = False
    # Hidden channels of a subnet, as a ratio of its input channels.
    hidden_ratio: float = 1.0
    # Bound on the log scale of each coupling.
    clamp: float = 2.0
    epochs: int = 500
    weight_decay: float = 1e-5

    def __post_init__(self):
        super().__post_init__()
        if self.flow_steps < 1:
            raise UserError(f"--flow_steps={self.flow_steps}: must be at least 1")
        if self.clamp <= 0:
            raise UserError(f"--clamp={self.clamp}: must be positive")

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Kernel size of the subnet of each step, the same at all scales."""
        return tuple(3 if self.conv3x3_only or not i % 2 else 1 for i in range(self.flow_steps))


class FastFlow(base.Detector[FastFlowConfig]):
    """FastFlow (Yu et al., 2021), ResNet variant: one flow per scale, likelihood per position.

    The LayerNorm over whole feature maps ties the parameters to one input size. Maps and scores
    lie in [-1, 0].
    """

    config: FastFlowConfig

    phases = ("gradient",)

    @property
    def outputs(self):
        return self.config.layers

    def setup(self):
        config = self.config
        self.norms = {layer: norm.MapNorm() for layer in config.layers}
        self.flows = {
            layer: coupling.Flow(
                config.kernel_sizes, config.hidden_ratio, config.clamp, jnp.dtype(config.dtype)
            )
            for layer in config.layers
        }

    def init_memory(self, key):
        shapes = self.feature_shapes()
        keys = jax.random.split(key, len(self.config.layers))
        return {
            f"permutations_{layer}": coupling.draw_permutations(
                layer_key, self.config.flow_steps, shapes[layer][-1]
            )
            for layer, layer_key in zip(self.config.layers, keys)
        }

    def frozen_features(self, images):
        return self.features(images)

    def latents(self, features: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Latents z `[B, h, w, C]` and log-determinants `[B]` by layer, at least float32."""
        found = {}
        for layer, x in features.items():
            normalized = self.norms[layer](full_precision(x))
            found[layer] = self.flows[layer](normalized, self.memory(f"permutations_{layer}"))
        return found

    def loss(self, inputs):
        """Negative log-likelihood but for its constant: `[]`; summed over positions and scales."""
        latents = self.latents(inputs).values()
        energy = total(0.5 * jnp.sum(z**2, (1, 2, 3)) for z, _ in latents).mean()
        log_det = total(log_det for _, log_det in latents).mean()
        return energy - log_det, {"energy": energy, "log_det": log_det}

    def __call__(self, images):
        maps = []
        for z, _ in self.latents(self.frozen_features(images)).values():
            likelihood = jnp.exp(-0.5 * jnp.mean(z**2, -1))
            maps.append(-resample.upsample_and_smooth(likelihood, images.shape[1:3], sigma=0))
        anomaly_map = total(maps) / len(maps)
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def memory_estimate(self, images, devices):
        shapes = self.feature_shapes().values()
        parameters = 0
        for height, width, channels in shapes:
            active = channels // 2
            passive = channels - active
            hidden = int(passive * self.config.hidden_ratio)
            parameters += 2 * height * width * channels
            for size in self.config.kernel_sizes:
                weights = size**2 * hidden * (passive + 2 * active)
                parameters += weights + hidden + 2 * active + 2 * channels
        values = sum(height * width * channels for height, width, channels in shapes)
        batch = values * self.config.batch_size * base.FLOAT
        return {
            "backbone": self.backbone_bytes() * devices,
            "parameters, gradients, optimizer": 4 * parameters * base.FLOAT * devices,
            # A step keeps about six arrays of the size of its input for the gradient.
            "activations of a batch": (6 * self.config.flow_steps + 4) * batch,
        }
