"""RD4AD: a decoder reconstructs the teacher's features from a compact embedding of them.

Deng, Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022,
arXiv 2201.10703.

What it learns: A decoder that restores the features of a frozen network, from deep to shallow, from
a narrow embedding of them, on good images alone. A position is as anomalous as restored and true
features differ in direction.

When to use it: A trained method with sharp maps is wanted: on our data its PRO and pixel AP are as
high as PatchCore's, at a constant time per image, whatever the number of good images.

When not: There are only minutes on a CPU: the preset `cpu` trains for about half an hour on two
cores (RESULTS.md).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from imvad_jax import backbones
from imvad_jax.backbones import resnet
from imvad_jax.errors import UserError
from imvad_jax.layers.decoder import OneClassEmbedding, ReverseDecoder
from imvad_jax.methods import base
from imvad_jax.ops import resample
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

EPSILON = 1e-8  # smallest norm that a feature vector is divided by
ACTIVATIONS = 50  # floats kept for the gradient per float of the features: traced, WRN50-2


@dataclasses.dataclass(frozen=True)
class RD4ADConfig(base.TrainedConfig):
    """Settings of RD4AD (called `reverse` in the published table)."""

    crop_size: int = 0
    batch_size: int = 16
    epochs: int = 200
    learning_rate: float = 5e-3
    beta1: float = 0.5
    # Teacher layers that the decoder reconstructs, from shallow to deep.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # Channels of the one-class embedding; 0 means twice those of the deepest layer.
    embedding_channels: int = 0
    # Give the blocks of the embedding the inner width of the teacher's blocks (1024 channels for
    # WRN50-2); otherwise that of a plain ResNet (512).
    wide_embedding: bool = True
    # Use the paper's loss, one cosine distance per position (eq. 2); otherwise one per image and
    # layer over the flattened feature map, as the official code does.
    per_position_loss: bool = False
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0


def products(a: Array, b: Array) -> Array:
    """`a.b`, `a.a` and `b.b` over the channels of two maps `[B, h, w, C]`: `[3, B, h, w]`."""
    a, b = full_precision(a), full_precision(b)
    return jnp.stack([jnp.sum(a * b, -1), jnp.sum(a * a, -1), jnp.sum(b * b, -1)])


def cosine_distance(products_: Array) -> Array:
    """`1 - cos` from the result of `products`, `[3, ...] -> [...]`; 1 where a vector is zero."""
    dot, *squares = products_
    # The norms themselves have no gradient at zero, where ReLUs often put them; this has.
    for squared in squares:
        dot *= lax.rsqrt(jnp.maximum(squared, EPSILON**2))
    return 1 - dot


def ends_in_relu(backbone: str, output: str) -> bool:
    """Whether the features `output` of a backbone are never negative."""
    is_resnet = isinstance(backbones.get(backbone).build(), resnet.ResNet)
    return is_resnet and not output.endswith("_pre")


def student_modules(
    config: RD4ADConfig, shapes: Sequence[tuple[int, int, int]]
) -> tuple[OneClassEmbedding, ReverseDecoder]:
    """The trained modules for teacher maps of `shapes` `(h, w, C)`, shallow to deep.

    They mirror a ResNet: its own block, its depths in its order (the decoder's first stage, its
    deepest, has as many blocks as the encoder's first, as officially), and an embedding of as many
    blocks as its last stage. For another teacher block and depths are those of ResNet-18. Widths
    are always those of the teacher's maps.

    Raises:
      UserError: sizes that strides of 2 do not lead back to.
    """
    rows, columns, _ = shapes[-1]
    sides = [(rows << level, columns << level) for level in reversed(range(len(shapes)))]
    if [shape[:2] for shape in shapes] != sides or rows % 2 or columns % 2:
        raise UserError(
            f"--image_size={config.image_size} --crop_size={config.crop_size}: the maps of "
            f"{', '.join(config.layers)} are {[shape[:2] for shape in shapes]}; each must be half "
            "the one before and the last one even: take a multiple of 32 pixels"
        )
    teacher = backbones.get(config.backbone).build()
    if isinstance(teacher, resnet.ResNet):
        block, sizes = teacher.block, teacher.stage_sizes
    else:
        block, sizes = resnet.BasicBlock, (2, 2, 2, 2)
    dtype = jnp.dtype(config.dtype)
    plain = cast(Any, getattr(block, "func", block))  # as wide inside as a plain ResNet's
    expansion = plain.expansion
    widths = [shape[-1] // expansion for shape in reversed(shapes)]
    filters = (config.embedding_channels // expansion) or 2 * widths[0]
    # parent=None: a module made outside of setup() must not look for one.
    own = block if config.wide_embedding else plain
    embedding = OneClassEmbedding(own, filters, sizes[-1], dtype, parent=None)
    depths = tuple(sizes[: len(widths)])
    return embedding, ReverseDecoder(block, tuple(widths), depths, dtype, parent=None)


class RD4AD(base.Detector[RD4ADConfig]):
    """RD4AD (Deng and Li, 2022)."""

    config: RD4ADConfig
    phases = ("gradient",)

    @property
    def outputs(self):
        return self.config.layers

    def setup(self):
        shapes = list(self.feature_shapes().values())
        self.embedding, self.decoder = student_modules(self.config, shapes)

    def frozen_features(self, images):
        found = self.features(images)
        return [found[name] for name in self.outputs]

    def products(self, teacher: list[Array], train: bool) -> list[Array]:
        """`products` of the teacher's maps and the restored ones, by layer."""
        restored = self.decoder(self.embedding(teacher, train), train)[::-1]
        # Officially the decoder ends in a ReLU, as the features do; other taps have both signs.
        return [
            products(a, nn.relu(b) if ends_in_relu(self.config.backbone, name) else b)
            for name, a, b in zip(self.outputs, teacher, restored)
        ]

    def loss(self, inputs):
        losses = {}
        for name, found in zip(self.outputs, self.products(inputs, train=True)):
            if not self.config.per_position_loss:
                found = found.sum((2, 3))  # of the whole map, flattened
            losses[name] = cosine_distance(found).mean()
        return total(losses.values()), losses

    def __call__(self, images):
        size = images.shape[1:3]
        anomaly_map = total(
            resample.upsample_and_smooth(
                cosine_distance(found), size, self.config.sigma, align_corners=True
            )
            for found in self.products(self.frozen_features(images), train=False)
        )
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def memory_estimate(self, images, devices):
        shapes = list(self.feature_shapes().values())
        embedding, decoder = student_modules(self.config, shapes)

        def init(key, maps):
            embedded, first = embedding.init_with_output(key, maps, train=False)
            return first, decoder.init(key, embedded, train=False)

        key = jax.eval_shape(lambda: jax.random.key(0))
        maps = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in shapes]
        trained = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, key, maps)))
        features = sum(h * w * c for h, w, c in shapes) * base.FLOAT * self.config.batch_size
        return {
            "backbone": self.backbone_bytes() * devices,
            "decoder, gradients, two moments": 4 * trained * base.FLOAT * devices,
            "activations of a batch": ACTIVATIONS * features,
        }
