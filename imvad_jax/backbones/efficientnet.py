"""EfficientNet (Tan & Le 2019, table 1) and its Lite form (no squeeze-excitation, ReLU6).

TensorFlow's conventions, as the released checkpoints need them: SAME padding, batch norm with
eps 1e-3. The package efficientnet_pytorch has the padding of one input size built in and keeps it
at all others; B5 is registered in both forms, which share their weights and differ in the features
of all sizes but that one. Meant as a frozen feature extractor: no dropout and no stochastic depth.
"""

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.backbones.spec import BackboneSpec, Tap, check_call
from imvad_jax.layers.conv import Conv
from imvad_jax.layers.norm import batch_norm
from imvad_jax.ops import rows

# (kernel, stride, expansion, channels, repeats) of the seven stages of B0
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
ALIASES = {"layer1": "stage1", "layer2": "stage2", "layer3": "stage4", "layer4": "stage6"}
OUTPUTS = (*(f"stage{index}" for index in range(len(STAGES))), *ALIASES, "pool", "logits")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)  # (255 x - 127) / 128


def scaled_width(channels: int, width: float) -> int:
    """Returns `channels * width` to the nearest multiple of 8, never more than 10 % below it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def scaled_repeats(depth: float, lite: bool) -> tuple[int, ...]:
    """Returns the blocks of each stage; Lite leaves the first and the last stage as they are."""
    last = len(STAGES) - 1
    return tuple(
        repeats if lite and index in (0, last) else math.ceil(repeats * depth)
        for index, (*_, repeats) in enumerate(STAGES)
    )


def same_padding(kernel: int, stride: int, side: int) -> tuple[int, int]:
    """Returns TensorFlow's SAME padding (before, after) of an input of that side."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


class SqueezeExcite(nn.Module):
    """Channel gates from global averages (Hu et al. 2018); `reduced` is the inner width."""

    reduced: int
    activation: Callable[[jax.Array], jax.Array]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = rows.mean_of_positions(x)
        y = Conv(self.reduced, (1, 1), dtype=self.dtype, name="conv_reduce")(y)
        y = self.activation(y)
        y = Conv(x.shape[-1], (1, 1), dtype=self.dtype, name="conv_expand")(y)
        return x * nn.sigmoid(y)


class MBConv(nn.Module):
    """Inverted residual: expand (unless `expansion` is 1), depthwise, gate, project, shortcut.

    `padding` is that of the depthwise convolution, in flax's terms.
    """

    kernel: int
    stride: int
    padding: Any
    expansion: int
    channels: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array]
    gate: bool
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, inner = x.shape[-1], x.shape[-1] * self.expansion
        names = ["conv_dw", "conv_pw"] if self.expansion == 1 else ["conv_dw", "conv_pwl"]
        norms = iter(("bn1", "bn2", "bn3"))  # numbered in the order of use
        y = x
        if self.expansion != 1:
            y = self.conv(inner, (1, 1), name="conv_pw")(y)
            y = self.activation(self.norm(name=next(norms))(y))
        window, stride = (self.kernel, self.kernel), (self.stride, self.stride)
        y = self.conv(
            inner,
            window,
            stride,
            padding=self.padding,
            feature_group_count=inner,
            name=names[0],
        )(y)
        y = self.activation(self.norm(name=next(norms))(y))
        if self.gate:
            y = SqueezeExcite(max(1, inputs // 4), self.activation, self.dtype, name="se")(y)
        y = self.conv(self.channels, (1, 1), name=names[1])(y)
        y = self.norm(name=next(norms))(y)
        return x + y if x.shape == y.shape and self.stride == 1 else y


class EfficientNet(nn.Module):
    """An EfficientNet that returns the requested features and computes no deeper layers.

    `lite`: ReLU6, no gates; stem, head and the depth of the outer stages are not scaled.
    `statistics` are the mean and standard deviation (RGB in [0, 1]) of the training recipe. Lite
    was trained on (255 x - 127) / 128. On photographs its checkpoint is surer of the right class
    with that than with ImageNet's statistics: espresso .94 against .82, moped .72 against .58,
    three cats together .88 against .83, tripod .95 with either.

    `padded_for` is the side in pixels of the input that the padding is computed for, whatever the
    input (efficientnet_pytorch); None: for the input itself, which is SAME.
    """

    width: float
    depth: float
    lite: bool
    statistics: tuple[Sequence[float], Sequence[float]] = IMAGENET
    padded_for: int | None = None
    num_classes: int = 1000
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, outputs: Sequence[str], train: bool = False
    ) -> dict[str, jax.Array]:
        """Returns the named features of `images` `[B, H, W, 3]`, RGB in [0, 1].

        `stageN` `[B, h, w, C]` is the output of the N-th group of blocks (a linear projection:
        no activation follows it) at strides 2, 4, 8, 16, 16, 32, 32; `layer1`..`layer4` are
        stages 1, 2, 4, 6; `pool` `[B, C]` and `logits` `[B, num_classes]` follow the head.
        Raises UserError for other shapes or names.
        """
        check_call(images, outputs, OUTPUTS)
        conv = partial(Conv, padding="SAME", use_bias=False, dtype=self.dtype)
        # TensorFlow trained with momentum .99, over far more steps than a student here gets.
        norm = partial(batch_norm, train, self.dtype, epsilon=1e-3)
        activation = nn.relu6 if self.lite else nn.silu
        outer_width = 1.0 if self.lite else self.width
        wanted, found = {ALIASES.get(name, name) for name in outputs}, {}
        mean, std = (jnp.asarray(values, jnp.float32) for values in self.statistics)
        x = ((images - mean) / std).astype(self.dtype)
        side = self.padded_for

        def padding(kernel, stride):
            return "SAME" if side is None else [same_padding(kernel, stride, side)] * 2

        stem = scaled_width(32, outer_width)
        x = conv(stem, (3, 3), (2, 2), padding=padding(3, 2), name="conv_stem")(x)
        side = side and -(-side // 2)
        x = activation(norm(name="bn1")(x))
        for stage, repeats in enumerate(scaled_repeats(self.depth, self.lite)):
            kernel, stride, expansion, channels, _ = STAGES[stage]
            for index in range(repeats):
                step = stride if index == 0 else 1
                x = MBConv(
                    kernel=kernel,
                    stride=step,
                    padding=padding(kernel, step),
                    expansion=expansion,
                    channels=scaled_width(channels, self.width),
                    conv=conv,
                    norm=norm,
                    activation=activation,
                    gate=not self.lite,
                    dtype=self.dtype,
                    name=f"blocks_{stage}_{index}",
                )(x)
                side = side and -(-side // step)
            found[f"stage{stage}"] = x
            if wanted <= found.keys():
                return {name: found[ALIASES.get(name, name)] for name in outputs}
        x = conv(scaled_width(1280, outer_width), (1, 1), name="conv_head")(x)
        found["pool"] = activation(norm(name="bn2")(x)).mean(axis=(1, 2))
        if "logits" in wanted:
            classifier = nn.Dense(self.num_classes, dtype=self.dtype, name="classifier")
            found["logits"] = classifier(found["pool"])
        return {name: found[ALIASES.get(name, name)] for name in outputs}


_BLOCK = re.compile(r"_blocks\.(\d+)\._(\w+)\.(.+)")
_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTER |= {"_fc": "classifier"}
_INNER = {"depthwise_conv": "conv_dw", "se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"}
_WITH_EXPANSION = {"expand_conv": "conv_pw", "bn0": "bn1", "bn1": "bn2"}
_WITH_EXPANSION |= {"project_conv": "conv_pwl", "bn2": "bn3"}
_WITHOUT_EXPANSION = {"bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}


def timm_key(key: str, repeats: Sequence[int]) -> str:
    """Translates the older PyTorch naming (`_blocks.3._bn0.weight`) to timm's.

    The older one counts blocks through the whole network, timm by stage (`repeats` each), and
    numbers the norms otherwise. A key that is not of the older naming is returned as it is.
    """
    outer, _, leaf = key.partition(".")
    if outer in _OUTER:
        return f"{_OUTER[outer]}.{leaf}"
    match = _BLOCK.fullmatch(key)
    if match is None:
        return key
    index, module, leaf = int(match[1]), match[2], match[3]
    stage = 0
    while stage < len(repeats) - 1 and index >= repeats[stage]:
        index -= repeats[stage]
        stage += 1
    names = _INNER | (_WITHOUT_EXPANSION if STAGES[stage][2] == 1 else _WITH_EXPANSION)
    return f"blocks.{stage}.{index}.{names[module]}.{leaf}" if module in names else key


def spec(
    name: str,
    hub: str,
    *,
    width: float,
    depth: float,
    lite: bool,
    statistics: Any,
    padded_for: int | None = None,
) -> BackboneSpec:
    """Returns the spec of one EfficientNet of the given width and depth coefficients."""
    stages, stride = {}, 2
    for index, (_, step, _, channels, _) in enumerate(STAGES):
        stride *= step
        stages[f"stage{index}"] = (scaled_width(channels, width), stride)
    maps = stages | {alias: stages[stage] for alias, stage in ALIASES.items()}
    head = scaled_width(1280, 1.0 if lite else width)
    return BackboneSpec(
        name=name,
        hub=hub,
        factory=partial(
            EfficientNet,
            width=width,
            depth=depth,
            lite=lite,
            statistics=statistics,
            padded_for=padded_for,
        ),
        taps=(
            *(Tap(tap, *maps[tap]) for tap in maps),
            Tap("pool", head, None),
            Tap("logits", 1000, None),
        ),
        rename=partial(timm_key, repeats=scaled_repeats(depth, lite)),
        local=True,
    )


# The training with AutoAugment is that of the weights of efficientnet_pytorch.
B5_HUB = "timm/tf_efficientnet_b5.aa_in1k"
SPECS = (
    spec(
        "efficientnet_lite0",
        "timm/tf_efficientnet_lite0.in1k",
        width=1.0,
        depth=1.0,
        lite=True,
        statistics=LITE,
    ),
    spec("tf_efficientnet_b5", B5_HUB, width=1.6, depth=2.2, lite=False, statistics=IMAGENET),
    spec(
        "efficientnet_b5_static",
        B5_HUB,
        width=1.6,
        depth=2.2,
        lite=False,
        statistics=IMAGENET,
        padded_for=456,
    ),
)
