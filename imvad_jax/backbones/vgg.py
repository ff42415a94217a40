"""VGG-16 without batch norm (Simonyan & Zisserman, ICLR 2015, column D): its convolutional part.

The classifier is left out: its first matrix alone holds seven times the weights of the rest.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.backbones.spec import BackboneSpec, Tap, check_call
from imvad_jax.layers.conv import Conv
from imvad_jax.ops import rows

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
# (channels, convolutions) between one pooling and the next
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
ALIASES = {"layer1": "relu15", "layer2": "relu22", "layer3": "relu29", "layer4": "pool30"}


def _maps() -> dict[str, tuple[int, int]]:
    """Channels and stride of every output, from shallow to deep."""
    maps, index = {}, 0
    for stage, (channels, convolutions) in enumerate(STAGES):
        for _ in range(convolutions):
            maps[f"relu{index + 1}"] = (channels, 2**stage)
            index += 2
        maps[f"pool{index}"] = (channels, 2 ** (stage + 1))
        index += 1
    return maps | {alias: maps[name] for alias, name in ALIASES.items()}


MAPS = _maps()


class VGG(nn.Module):
    """VGG-16 that returns the requested features and computes no deeper layers."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, outputs: Sequence[str], train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns the named features of `images` `[B, H, W, 3]`, RGB in [0, 1].

        `reluN` and `poolN` `[B, h, w, C]` are the outputs of the ReLUs and poolings, N being the
        place among torchvision's `features` (the ReLU after `features.14` is `relu15`); sizes are
        rounded down. `layer1`..`layer4` are the deepest maps of stride 4, 8, 16 and 32: `relu15`,
        `relu22`, `relu29`, and for want of a convolution at 32 the last pooling, `pool30`. `train`
        changes nothing, there being neither batch norm nor, in this part, dropout. Raises
        UserError for other shapes or names.
        """
        check_call(images, outputs, tuple(MAPS))
        start = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # torchvision's
        wanted, found = {ALIASES.get(name, name) for name in outputs}, {}
        x = (images - jnp.asarray(MEAN, jnp.float32)) / jnp.asarray(STD, jnp.float32)
        x, index = x.astype(self.dtype), 0
        for channels, convolutions in STAGES:
            for _ in range(convolutions):
                x = Conv(
                    channels,
                    (3, 3),
                    padding=1,
                    dtype=self.dtype,
                    kernel_init=start,
                    name=f"features_{index}",
                )(x)
                found[f"relu{index + 1}"] = x = nn.relu(x)
                index += 2
                if wanted <= found.keys():
                    return {name: found[ALIASES.get(name, name)] for name in outputs}
            rows.check_stride(x, 2)
            found[f"pool{index}"] = x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
            index += 1
        return {name: found[ALIASES.get(name, name)] for name in outputs}


SPECS = (
    BackboneSpec(
        name="vgg16",
        hub="timm/vgg16.tv_in1k",
        factory=VGG,
        taps=tuple(Tap(name, *MAPS[name]) for name in MAPS),
        local=True,
    ),
)
