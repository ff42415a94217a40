"""CS-Flow: a normalising flow over the features of one image at three scales.

Rudolph, Wehrbein, Rosenhahn, Wandt, "Fully Convolutional Cross-Scale-Flows for Image-based Defect
Detection", WACV 2022, arXiv 2110.02855; official code marco-rudolph/cs-flow.

What it learns: A normalising flow that turns the features of good images at three scales, whose
subnets see all scales at once, into a standard normal distribution. An image is as anomalous as it
is unlikely under the flow.

When to use it: The question is whether a part is good, not where its defect is, and defects differ
in size.

When not: A map is needed: officially there is none for measuring (`with_map` gives one of the
finest scale to look at). With a weak backbone and few epochs it stays below PatchCore on small
defects.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from imvad_jax import backbones
from imvad_jax.errors import UserError
from imvad_jax.layers import coupling, cross_scale
from imvad_jax.methods import base
from imvad_jax.ops import resample
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

SCALES = 3


@dataclasses.dataclass(frozen=True)
class CSFlowConfig(base.TrainedConfig):
    """Settings of CS-Flow."""

    # The frozen feature extractor. The default reproduces the padding of efficientnet_pytorch,
    # which the official code uses.
    backbone: str = "efficientnet_b5_static"
    image_size: int = 768
    crop_size: int = 0
    batch_size: int = 16
    # Backbone layer whose feature map the flow models (stage5: 304 channels at stride 32).
    layer: str = "stage5"
    # Number of coupling blocks in the flow.
    flow_blocks: int = 4
    # Hidden channels of the subnets in each coupling block.
    hidden: int = 1024
    # Bound on the log scale of each coupling.
    clamp: float = 3.0
    # Also return an anomaly map, from the finest scale. The official code uses it for display only.
    with_map: bool = False
    epochs: int = 240
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    # Added to the denominator of Adam. The output scales of the subnets start at zero, and so do
    # the gradients of the layers before them: with the usual 1e-8 Adam turns the first tiny
    # gradients into full steps, and the training may diverge.
    epsilon: float = 1e-4
    gradient_clip: float = 1.0
    cache_features: bool = True

    def __post_init__(self):
        super().__post_init__()
        for name in ("flow_blocks", "hidden"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}={getattr(self, name)}: must be at least 1")
        if self.clamp <= 0:
            raise UserError(f"--clamp={self.clamp}: must be positive")

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Kernel size of the subnets of each block: 3, and 5 in the last."""
        return (3,) * (self.flow_blocks - 1) + (5,)


class CSFlow(base.Detector[CSFlowConfig]):
    """CS-Flow (Rudolph et al., 2022).

    The score is half the mean square of all latents. The log-determinant is part of the loss
    only.
    """

    config: CSFlowConfig

    phases = ("gradient",)

    @property
    def outputs(self):
        return (self.config.layer,)

    def setup(self):
        config = self.config
        self.blocks = [
            cross_scale.CrossScaleCoupling(
                config.hidden, size, config.clamp, jnp.dtype(config.dtype)
            )
            for size in config.kernel_sizes
        ]

    def init_memory(self, key):
        channels = backbones.get(self.config.backbone).channels(self.config.layer)
        keys = jax.random.split(key, SCALES)
        return {
            f"permutations_{i}": coupling.draw_permutations(
                keys[i], self.config.flow_blocks, channels
            )
            for i in range(SCALES)
        }

    def init_parameters(self, images):
        # The backbone at three scales would be traced and compiled once more, for shapes alone.
        shapes = base.frozen_shapes(self.compile_key())
        self.loss([jnp.zeros(maps.shape, maps.dtype) for maps in shapes])

    def frozen_features(self, images: Array) -> list[Array]:
        """The features of the image, of every second and of every fourth pixel: `[B, h, w, C]`.

        Pixels are taken, not averaged, as in the official code.
        """
        maps = []
        for i in range(SCALES):
            (features,) = self.features(images[:, :: 2**i, :: 2**i]).values()
            maps.append(full_precision(features))
            if i and features.shape[1:3] != tuple(-(-n // 2) for n in maps[i - 1].shape[1:3]):
                raise UserError(
                    f"--image_size={self.config.image_size}: '{self.config.layer}' of "
                    f"{self.config.backbone} is {maps[i - 1].shape[1:3]} at one scale and "
                    f"{features.shape[1:3]} at half of it, expected half; take a multiple of "
                    f"{4 * backbones.get(self.config.backbone).stride(self.config.layer)}"
                )
        return maps

    def latents(self, maps: list[Array]) -> tuple[list[Array], Array]:
        """Latents `[B, h, w, C]` by scale and the log-determinant `[B]`, at least float32."""
        log_dets = []
        for k, block in enumerate(self.blocks):
            permutations = [self.memory(f"permutations_{i}")[k] for i in range(SCALES)]
            maps, log_det = block(maps, permutations)
            log_dets.append(log_det)
        return maps, total(log_dets)

    def energy(self, latents: list[Array]) -> Array:
        """Half the mean square over all scales, positions and channels: `[B]`."""
        squares = total(jnp.sum(z**2, (1, 2, 3)) for z in latents)
        return 0.5 * squares / _dimensions(latents)

    def loss(self, inputs):
        """Negative log-likelihood a dimension but for its constant: `[]`."""
        latents, log_det = self.latents(inputs)
        energy = self.energy(latents).mean()
        log_det = log_det.mean() / _dimensions(latents)
        return energy - log_det, {"energy": energy, "log_det": log_det}

    def __call__(self, images):
        latents, _ = self.latents(self.frozen_features(images))
        anomaly_map = None
        if self.config.with_map:
            squares = jnp.mean(latents[0] ** 2, -1)
            anomaly_map = resample.upsample_and_smooth(squares, images.shape[1:3], sigma=0)
        return base.Prediction(self.energy(latents), anomaly_map)

    def memory_estimate(self, images, devices):
        config, spec = self.config, backbones.get(self.config.backbone)
        channels, stride = spec.channels(config.layer), spec.stride(config.layer)
        sides = [-(-config.input_size // (stride * 2**i)) for i in range(SCALES)]
        positions = sum(side**2 for side in sides)
        parameters = 0
        for size in config.kernel_sizes:
            for steering, moved in _halves(channels):
                weights = SCALES * steering + (3 * SCALES - 2) * 2 * moved
                biases = SCALES * config.hidden + (3 * SCALES - 2) * 2 * moved
                parameters += size**2 * config.hidden * weights + biases + SCALES
        # Kept for the gradient: of each subnet its hidden maps, before and after the activation
        # and enlarged, and about eight arrays of the size of its input.
        kept = positions * base.FLOAT * (4 * config.hidden + 8 * channels) * 2 * config.flow_blocks
        return {
            "backbone": self.backbone_bytes() * devices,
            "parameters, gradients, optimizer": 4 * parameters * base.FLOAT * devices,
            "activations of a batch": kept * config.batch_size,
        }


def _halves(channels: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(steering, moved) channels of the two subnets of a block."""
    half = channels // 2
    return (half, channels - half), (channels - half, half)


def _dimensions(latents: list[Array]) -> int:
    """Numbers in the latents of one image."""
    return sum(z[0].size for z in latents)
