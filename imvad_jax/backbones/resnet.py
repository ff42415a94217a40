"""ResNet-18/34/50 (He et al. 2016) and Wide-ResNet-50-2 (Zagoruyko & Komodakis 2016).

The variant of torchvision and timm: the bottleneck strides in its 3x3 convolution, and every
padding is explicit and symmetric (flax's SAME would shift the features by up to a pixel).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.backbones.spec import BackboneSpec, Tap, check_call
from imvad_jax.layers.conv import Conv
from imvad_jax.layers.norm import batch_norm
from imvad_jax.ops import pooling

MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB in [0, 1]
STD = (0.229, 0.224, 0.225)
STAGES = (1, 2, 3, 4)
OUTPUTS = (
    *(f"layer{stage}{suffix}" for stage in STAGES for suffix in ("_pre", "")),
    "pool",
    "logits",
)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; returns the sum before its ReLU."""

    filters: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    expansion = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = (self.stride, self.stride)
        y = self.conv(self.filters, (3, 3), stride, padding=1, name="conv1")(x)
        y = self.norm(negative_slope=0, name="bn1")(y)
        y = self.conv(self.filters, (3, 3), padding=1, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        if x.shape != y.shape:
            x = self.conv(self.filters, (1, 1), stride, padding=0, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x)
        return x + y


class BottleneckBlock(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut; returns the sum before its ReLU."""

    filters: int
    stride: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    widen: int = 1
    expansion = 4

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = (self.stride, self.stride)
        inner, outer = self.filters * self.widen, self.filters * self.expansion
        y = self.conv(inner, (1, 1), padding=0, name="conv1")(x)
        y = self.norm(negative_slope=0, name="bn1")(y)
        y = self.conv(inner, (3, 3), stride, padding=1, name="conv2")(y)
        y = self.norm(negative_slope=0, name="bn2")(y)
        y = self.conv(outer, (1, 1), padding=0, name="conv3")(y)
        y = self.norm(name="bn3")(y)
        if x.shape != y.shape:
            x = self.conv(outer, (1, 1), stride, padding=0, name="downsample_0")(x)
            x = self.norm(name="downsample_1")(x)
        return x + y


class ResNet(nn.Module):
    """A residual network that returns the requested features and computes no deeper layers.

    Under pmap all devices share the training statistics.
    """

    stage_sizes: Sequence[int]
    block: Callable[..., nn.Module]
    num_classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, outputs: Sequence[str], train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns the named features of `images` `[B, H, W, 3]`, RGB in [0, 1].

        `layerN` `[B, H / 2^(N+1), W / 2^(N+1), C]` (rounded up) follows the last ReLU of stage
        N, `layerN_pre` is the residual sum before it, `pool` `[B, C]` the global average of
        `layer4`, `logits` `[B, num_classes]`. Raises UserError for other shapes or names.
        """
        check_call(images, outputs, OUTPUTS)
        # The start of torchvision's ResNets, which matters where one is trained from scratch.
        start = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        conv = partial(Conv, use_bias=False, dtype=self.dtype, kernel_init=start)
        norm = partial(batch_norm, train, self.dtype)
        wanted, found = set(outputs), {}
        x = (images - jnp.asarray(MEAN, jnp.float32)) / jnp.asarray(STD, jnp.float32)
        x = conv(64, (7, 7), (2, 2), padding=3, name="conv1")(x.astype(self.dtype))
        x = norm(negative_slope=0, name="bn1")(x)
        x = pooling.max_pool_3x3_of_positive(x)
        for stage, size in zip(STAGES, self.stage_sizes, strict=True):
            pre = x
            for index in range(size):
                pre = self.block(
                    filters=64 * 2 ** (stage - 1),
                    stride=2 if stage > 1 and index == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"layer{stage}_{index}",
                )(x)
                x = nn.relu(pre)
            found |= {f"layer{stage}_pre": pre, f"layer{stage}": x}
            if wanted <= found.keys():
                return {name: found[name] for name in outputs}
        found["pool"] = x.mean(axis=(1, 2))
        if "logits" in wanted:
            found["logits"] = nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(found["pool"])
        return {name: found[name] for name in outputs}


def spec(name: str, hub: str, stage_sizes: Sequence[int], block: Any) -> BackboneSpec:
    """Returns the spec of one ResNet; `block` is a block class or a partial of one."""
    expansion = getattr(block, "func", block).expansion
    widths = {stage: 64 * 2 ** (stage - 1) * expansion for stage in STAGES}
    maps = [
        Tap(f"layer{stage}{suffix}", widths[stage], 2 ** (stage + 1))
        for stage in STAGES
        for suffix in ("_pre", "")
    ]
    return BackboneSpec(
        name=name,
        hub=hub,
        factory=partial(ResNet, stage_sizes=tuple(stage_sizes), block=block),
        taps=(*maps, Tap("pool", widths[4], None), Tap("logits", 1000, None)),
        local=True,
    )


SPECS = (
    spec("resnet18", "timm/resnet18.tv_in1k", (2, 2, 2, 2), BasicBlock),
    spec("resnet34", "timm/resnet34.tv_in1k", (3, 4, 6, 3), BasicBlock),
    spec("resnet50", "timm/resnet50.tv_in1k", (3, 4, 6, 3), BottleneckBlock),
    spec(
        "wide_resnet50_2",
        "timm/wide_resnet50_2.tv_in1k",
        (3, 4, 6, 3),
        partial(BottleneckBlock, widen=2),
    ),
)
