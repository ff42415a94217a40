"""DRAEM: one network removes synthetic defects, another learns to segment what was removed.

Zavrtanik, Kristan, Skocaj, "DRAEM - A discriminatively trained reconstruction embedding for surface
anomaly detection", ICCV 2021, arXiv 2108.07610. Settings are those of the authors' code.

What it learns: Two networks, from scratch: one repairs images into which anomalies were drawn, the
other sees, from the image and its repaired form, which pixels were drawn. The map is the
probability of a drawn anomaly.

When to use it: Sharp outlines are wanted, there are hundreds of good images, an accelerator and
hours: the official setting trains 700 epochs. It needs no pretrained weights.

When not: There is only a CPU, or the light of new images differs from that of the good ones: the
preset `cpu` takes a darker background of screws for a defect and ranks good parts above defective
ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from imvad_jax.errors import UserError
from imvad_jax.layers.unet import DiscriminativeNetwork, ReconstructiveNetwork
from imvad_jax.methods import base
from imvad_jax.ops import anomaly
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.ssim import filter_with_zeros, ssim_map
from imvad_jax.ops.sums import total

SMOOTHING = 1e-5  # of the focal loss: targets are 1e-5 and 1 - 1e-5, and added to the probability
ACTIVATIONS = 4  # floats kept for the gradient per float that a convolution gives: measured, 128 px
FOCUS = 2  # gamma of the focal loss


@dataclasses.dataclass(frozen=True)
class DRAEMConfig(base.TrainedConfig):
    """Settings of DRAEM."""

    backbone: str = "none"
    crop_size: int = 0
    batch_size: int = 8
    epochs: int = 700
    learning_rate: float = 1e-4
    schedule: str = "step"
    # Channels of the reconstructive encoder per level; each level halves the resolution.
    reconstructive_widths: tuple[int, ...] = (128, 256, 512, 1024, 1024)
    # Channels of the discriminative encoder per level; each level halves the resolution.
    discriminative_widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    # Folder of texture images for the synthetic anomalies, such as DTD; if empty, textures are
    # drawn.
    texture_dir: str = dataclasses.field(default="", metadata={"path": True})
    # Fraction of the synthetic anomalies whose texture is the training image itself, rearranged.
    own_textures: float = 0.0
    # Largest sharpness factor of a texture: 1 leaves it unchanged, smaller values blur it.
    texture_sharpness: float = 3.0
    # Each training image is made brighter or darker as a whole, input and target alike, so that the
    # light of an image is no defect: multiplied by a factor within this distance of 1, plus an
    # offset within half of it. 0 in the authors' code.
    brightness_shift: float = 0.0
    # Fraction of the anomalies whose texture is shifted to the mean brightness of the region that
    # it covers, so that brightness alone does not reveal them; 0 in the authors' code.
    matched_textures: float = 0.0
    # Side of the averaging window in pixels (odd); the image score is the largest window mean of
    # the anomaly map.
    score_window: int = 21

    def __post_init__(self):
        super().__post_init__()
        if self.score_window < 1 or self.score_window % 2 == 0:
            raise UserError(f"--score_window={self.score_window}: must be odd and positive")
        for name in ("own_textures", "matched_textures", "brightness_shift"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name}={getattr(self, name)}: must lie in [0, 1]")
        if self.texture_sharpness < 0:
            raise UserError(f"--texture_sharpness={self.texture_sharpness}: must not be negative")
        for name in ("reconstructive_widths", "discriminative_widths"):
            widths = getattr(self, name)
            if not widths or min(widths) < 1:
                raise UserError(f"--{name}={widths}: expected positive numbers of channels")
            if self.input_size % (factor := 2 ** (len(widths) - 1)):
                raise UserError(
                    f"--image_size: {self.input_size} pixels are not divisible by {factor}, as "
                    f"{len(widths)} levels of --{name} need"
                )

    @property
    def picture_dirs(self):
        return {"textures": self.texture_dir}

    @property
    def notes(self):
        if not self.own_textures:
            return ()
        return (f"anomaly textures: {self.own_textures:.0%} are the image itself, rearranged",)


def focal_loss(logits: Array, anomalous: Array) -> Array:
    """Focal loss `[]` (Lin et al., ICCV 2017) of logits `[..., 2]` and targets bool `[...]`.

    The mean of `-(1 - p)^2 log p`, p the smoothed probability of the right class.
    """
    probability = jax.nn.softmax(full_precision(logits), -1)
    right = jnp.where(anomalous, probability[..., 1], probability[..., 0])
    right = (1 - SMOOTHING) * right + SMOOTHING * (1 - right) + SMOOTHING
    return jnp.mean(-((1 - right) ** FOCUS) * jnp.log(right))


class DRAEM(base.Detector[DRAEMConfig]):
    """DRAEM (Zavrtanik et al., 2021). Maps and scores are probabilities."""

    config: DRAEMConfig

    phases = ("gradient",)

    def setup(self):
        dtype = jnp.dtype(self.config.dtype)
        self.reconstructive = ReconstructiveNetwork(self.config.reconstructive_widths, dtype)
        self.discriminative = DiscriminativeNetwork(self.config.discriminative_widths, dtype=dtype)

    def networks(self, images: Array, train: bool) -> tuple[Array, Array]:
        """The repaired images `[B, H, W, 3]` and logits `[B, H, W, 2]`, at least float32."""
        repaired = self.reconstructive(images, train)
        both = jnp.concatenate([repaired, images.astype(repaired.dtype)], -1)
        return full_precision(repaired), full_precision(self.discriminative(both, train))

    def draw_anomalies(self, images: Array) -> anomaly.SyntheticAnomaly:
        """A batch of good images with and without drawn anomalies, of the stream `noise`."""
        config, pictures = self.config, None
        if self.has_variable("textures", "images"):
            pictures = self.get_variable("textures", "images")
        return anomaly.synthesize(
            self.image_keys(images.shape[0]), images, pictures, own=config.own_textures,
            sharpest=config.texture_sharpness, shift=config.brightness_shift,
            matched=config.matched_textures,
        )  # fmt: skip

    def loss(self, inputs):
        """Mean squared error and 1 - SSIM of the repaired images, and the focal loss of the map."""
        drawn = self.draw_anomalies(inputs)
        repaired, logits = self.networks(drawn.augmented, train=True)
        metrics = {
            "mse": jnp.mean((repaired - drawn.original) ** 2),
            "ssim": 1 - ssim_map(repaired, drawn.original).mean(),
            "focal": focal_loss(logits, drawn.mask),
        }
        return total(metrics.values()), metrics

    def init_parameters(self, images):
        self.networks(images, train=True)

    def __call__(self, images):
        _, logits = self.networks(images, train=False)
        anomaly_map = jax.nn.softmax(logits, -1)[..., 1]
        window = np.full(self.config.score_window, 1 / self.config.score_window)
        smooth = filter_with_zeros(anomaly_map[..., None], window)
        return base.Prediction(smooth.max((1, 2, 3)), anomaly_map)

    def memory_estimate(self, images, devices):
        parameters = values = 0
        for inputs, outputs, level in self.convolutions():
            parameters += 9 * inputs * outputs + 3 * outputs
            values += outputs * (self.config.input_size >> level) ** 2
        parameters -= 2 * (3 + 2)  # the last ones have no batch norm
        batch = values * self.config.batch_size * jnp.dtype(self.config.dtype).itemsize
        return {
            "parameters, gradients, optimizer": 4 * parameters * base.FLOAT * devices,
            "activations of a batch": ACTIVATIONS * batch,
        }

    def convolutions(self) -> list[tuple[int, int, int]]:
        """Channels in, channels out and level of every convolution of both networks."""
        found = []
        for widths, inputs, outputs, skips in (
            (self.config.reconstructive_widths, 3, 3, False),
            (self.config.discriminative_widths, 6, 2, True),
        ):
            for level, width in enumerate(widths):
                found += [(inputs, width, level), (width, width, level)]
                inputs = width
            for level in reversed(range(len(widths) - 1)):
                narrow = widths[max(level - 1, 0)]
                if skips:
                    found += [(inputs, narrow, level), (narrow + widths[level], narrow, level),
                              (narrow, narrow, level)]  # fmt: skip
                else:
                    found += [(inputs, inputs, level)] * 2 + [(inputs, narrow, level)]
                inputs = narrow
            found.append((inputs, outputs, 0))
        return found
