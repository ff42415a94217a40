"""STPM: a student matches a teacher's feature pyramid; where it fails, the image is anomalous.

Wang, Han, Ding, Huang, "Student-Teacher Feature Pyramid Matching for Anomaly Detection", BMVC 2021,
arXiv 2103.04257.

What it learns: A student of the same architecture that matches three layers of a frozen teacher on
good images. A position is as anomalous as the student's normalised features differ from the
teacher's.

When to use it: A small, fast detector with sharp maps on parts in a steady pose: two ResNet-18 and
no memory bank.

When not: The training must be short: on screws the student needs the 100 epochs of the paper
(preset `cpu` has 40), and PatchCore is better in a minute.
"""

import dataclasses

import jax.numpy as jnp
from jax import Array, lax

from imvad_jax import backbones
from imvad_jax.errors import choose
from imvad_jax.methods import base
from imvad_jax.ops import resample, rows
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

EPSILON = 1e-12  # smallest norm that a feature vector is divided by
ACTIVATIONS = 28  # floats kept for the gradient per float of the features: measured, ResNet-18, 256


@dataclasses.dataclass(frozen=True)
class STPMConfig(base.TrainedConfig):
    """Settings of STPM.

    All good images train and the last epoch counts. The official code holds a fifth of them out
    and takes the epoch with the lowest scores on those.
    """

    # Network of both the teacher and the student; --list prints the names.
    backbone: str = "resnet18"
    crop_size: int = 0
    epochs: int = 100
    optimizer: str = "sgd"
    # Initial learning rate; large because the loss averages small distances over all positions.
    learning_rate: float = 0.4
    weight_decay: float = 1e-4
    # Layers at which the student's features are matched to the teacher's.
    layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    # Initial weights of the student: random, or teacher for a copy of the teacher's.
    student_start: str = "random"
    # Use half the sum over the batch as loss, which grows with the batch size, not the mean.
    summed_loss: bool = False
    # Multiply the layers' maps at the size of the image; otherwise at the size of the first layer.
    full_size_product: bool = False

    def __post_init__(self):
        super().__post_init__()
        choose("--student_start", self.student_start, ("random", "teacher"))


def unit_vectors(features: Array) -> Array:
    """Features `[..., C]` divided by their norm over the channels; zeros stay zeros."""
    features = full_precision(features)
    squared = jnp.sum(features**2, -1, keepdims=True)
    # The norm itself has no gradient at zero, where a ReLU often puts it; this has.
    return features * lax.rsqrt(jnp.maximum(squared, EPSILON**2))


def distance(teacher: Array, student: Array) -> Array:
    """Squared distance `[B, h, w]` of the unit vectors of two maps `[B, h, w, C]`: 0 ... 4."""
    return jnp.sum((unit_vectors(teacher) - unit_vectors(student)) ** 2, -1)


class STPM(base.Detector[STPMConfig]):
    """STPM (Wang et al., 2021).

    The student is the teacher's network as far as the last layer in use, started at random or as
    the teacher. It sees its input normalised as the teacher does.
    """

    config: STPMConfig
    phases = ("gradient",)
    all_by_rows = True

    @property
    def outputs(self):
        return self.config.layers

    def setup(self):
        self.student = backbones.get(self.config.backbone).build(jnp.dtype(self.config.dtype))

    def start(self, variables):
        if self.config.student_start == "random":
            return variables
        teacher = {name: {"student": value} for name, value in variables["backbone"].items()}
        return {**variables, **teacher}

    def frozen_features(self, images):
        return images, self.features(images)

    def distances(self, images: Array, teacher: dict, train: bool) -> dict[str, Array]:
        """Distance of the teacher's features and the student's by layer, `[B, h, w]` each."""
        student = self.student(images, outputs=self.outputs, train=train)
        return {name: distance(teacher[name], student[name]) for name in self.outputs}

    def loss(self, inputs):
        # The paper's equations 2 and 3 without their factor of 1/2, as in the official code.
        # With `summed_loss` the factor is kept and the loss summed over the batch, as in open-iad.
        scale = self.config.batch_size / 2 if self.config.summed_loss else 1
        distances = self.distances(*inputs, train=True)
        losses = {name: scale * d.mean() for name, d in distances.items()}
        return total(losses.values()), losses

    def __call__(self, images):
        distances = rows.by_rows(
            lambda x: self.distances(*self.frozen_features(x), train=False), images
        )
        # Maps are multiplied on the grid of the first layer (64 x 64 at 256 pixels), as officially.
        full = self.config.full_size_product
        grid = images.shape[1:3] if full else distances[self.outputs[0]].shape[1:]
        product = jnp.ones((), jnp.float32)
        for name in self.outputs:
            product *= resample.upsample_and_smooth(distances[name], grid, sigma=0)
        anomaly_map = resample.upsample_and_smooth(product, images.shape[1:3], sigma=0)
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def memory_estimate(self, images, devices):
        shapes = self.feature_shapes().values()
        features = sum(h * w * c for h, w, c in shapes) * base.FLOAT * self.config.batch_size
        return {
            "backbone": self.backbone_bytes() * devices,
            "student, gradients, momentum": 4 * self.backbone_bytes() * devices,
            "activations of a batch": ACTIVATIONS * features,
        }
