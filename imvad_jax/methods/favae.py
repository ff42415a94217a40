"""FAVAE: a variational autoencoder that reconstructs the image and a teacher's features of it.

Dehaene, Eline, "Anomaly localization by modeling perceptual features", arXiv 2008.05369, 2020.
There is no official code; this follows xiahaifeng1995/FAVAE-anomaly-detection-localization-master,
as open-iad does.

What it learns: A variational autoencoder that restores good images, and from its decoder the
features that a frozen network has of them. A position is as anomalous as the true features differ
from the restored ones.

When to use it: Parts at any angle, on small images: it trains on flipped and rotated ones, and its
image AUROC on screws is the highest of the trained methods here, at 128 pixels.

When not: Good parts vary much in texture: what the narrow code cannot restore lights up on good
parts as well.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from imvad_jax import backbones
from imvad_jax.backbones import resnet
from imvad_jax.errors import UserError
from imvad_jax.layers import vae
from imvad_jax.methods import base
from imvad_jax.ops import resample
from imvad_jax.ops.affine import sample_bilinear
from imvad_jax.ops.precision import full_precision
from imvad_jax.ops.sums import total

SCALES = 3  # maps of the decoder that are compared with the teacher's
PROBABILITY = 0.3  # of each augmentation
ANGLE = 15.0  # degrees, the largest rotation
ACTIVATIONS = 7  # floats kept for the gradient per pixel and unit of width: measured, width 32


@dataclasses.dataclass(frozen=True)
class FAVAEConfig(base.TrainedConfig):
    """Settings of FAVAE.

    All good images train and the last epoch counts. The common code holds a fifth of them out and
    stops 20 epochs after the lowest loss on those. It draws 10,000 augmented images once; here
    every image of every batch is augmented afresh, 157 batches of 64 an epoch (the preset
    `official` takes 125, those of the 8,000 images that are not held out there). Its sums run over
    the batch too, here the loss is a mean over it: Adam takes no notice, and the weight decay is
    negligible beside sums over 900,000 terms either way.
    """

    # The frozen teacher network; --list prints the names.
    backbone: str = "vgg16"
    image_size: int = 128
    crop_size: int = 0
    batch_size: int = 64
    epochs: int = 100
    steps_per_epoch: int = 157
    learning_rate: float = 5e-3
    weight_decay: float = 1e-5
    cache_features: bool = False
    # Three layers of the teacher, from shallow to deep, which the decoder reproduces.
    layers: tuple[str, ...] = ("relu8", "relu15", "relu22")
    # Normalise the teacher's input by its mean and standard deviation; otherwise it sees [0, 1].
    normalize_teacher: bool = False
    # Augment training images by random flips and rotations.
    augment: bool = True
    # Channels of the autoencoder's outermost layers; the innermost layers have 4 times as many.
    width: int = 128
    # Dimension of the latent vector.
    latent_size: int = 100
    # Weight of the Kullback-Leibler term of the loss.
    kld_weight: float = 1.0
    # Standard deviation of the Gaussian that smooths the anomaly map, in pixels.
    sigma: float = 4.0

    def __post_init__(self):
        super().__post_init__()
        spec = backbones.get(self.backbone)
        valid = [tap.name for tap in spec.taps if tap.stride]
        given = f"--layers={','.join(self.layers)}"
        for name in self.layers:
            if name not in valid:
                raise UserError(
                    f"{given}: {self.backbone} has no feature map '{name}'; name three of "
                    f"{', '.join(valid)}, shallow to deep"
                )
        strides = [spec.stride(name) for name in self.layers]
        if len(set(self.layers)) != SCALES or strides != sorted(strides):
            raise UserError(
                f"{given}: expected three feature maps of {self.backbone}, shallow to deep, one "
                f"for each scale of the decoder; these have strides {strides}"
            )
        if self.input_size % vae.REDUCTION:
            raise UserError(
                f"--image_size={self.image_size} --crop_size={self.crop_size}: the autoencoder "
                f"needs a multiple of {vae.REDUCTION} pixels, found {self.input_size}"
            )
        for name, least in (("width", 4), ("latent_size", 1)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}={getattr(self, name)}: must be at least {least}")
        if self.kld_weight < 0:
            raise UserError(f"--kld_weight={self.kld_weight}: must not be negative")
        if self.augment and self.cache_features:
            raise UserError(
                "--augment=True --cache_features=True: every batch is augmented anew, so the "
                "teacher's features cannot be cached; set one of them to False"
            )


def kl_divergence(mean: Array, log_variance: Array) -> Array:
    """KL divergence `[B]` of normal distributions `[B, Z]` from the standard one, in nats."""
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, -1)


def standard_normal(keys: Array, like: Array | jax.ShapeDtypeStruct) -> Array:
    """Draws `[B, Z]` from the standard normal distribution by keys `[B]`, of the type of `like`."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:], like.dtype))(keys)


def sampled(mean: Array, log_variance: Array, noise: Array) -> Array:
    """A draw from each of the normal distributions `[B, Z]`, given one from the standard one."""
    return mean + jnp.exp(log_variance / 2) * noise


def turned(image: Array, angle: Array) -> Array:
    """A square image `[N, N, C]` turned by `angle` radians, enlarged until no corner is empty.

    Turning counter-clockwise and cutting out the largest upright square, of side
    `N / (cos a + |sin a|)`, in one bilinear interpolation.
    """
    middle = (image.shape[0] - 1) / 2
    down, right = jnp.meshgrid(*[jnp.arange(image.shape[0]) - middle] * 2, indexing="ij")
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    zoom = cosine + jnp.abs(sine)
    rows = middle + (right * sine + down * cosine) / zoom
    columns = middle + (right * cosine - down * sine) / zoom
    return sample_bilinear(image, rows, columns)


def augmented(image: Array, key: Array) -> Array:
    """A square image `[N, N, C]`, turned and flipped either way with probability .3 each."""
    which, how = jax.random.split(key)
    turn, flip, mirror = jax.random.bernoulli(which, PROBABILITY, (3,))
    limit = jnp.deg2rad(ANGLE)
    angle = jax.random.uniform(how, minval=-limit, maxval=limit)
    image = jnp.where(turn, turned(image, angle), image)
    image = jnp.where(mirror, image[:, ::-1], image)
    return jnp.where(flip, image[::-1], image)


def summed_squares(a: Array, b: Array) -> Array:
    """Squared differences of maps `[B, h, w, C]`, summed over the channels: `[B, h, w]`."""
    return jnp.sum((full_precision(a) - full_precision(b)) ** 2, -1)


def modules(config: FAVAEConfig) -> tuple[vae.Encoder, vae.Decoder, list[vae.Adapter]]:
    """The trained modules; the adapters lead the decoder's maps to the widths of the teacher's."""
    dtype, side = jnp.dtype(config.dtype), config.input_size // vae.REDUCTION
    spec = backbones.get(config.backbone)
    # parent=None: a module made outside of setup() must not look for one.
    encoder = vae.Encoder(config.width, config.latent_size, dtype, parent=None)
    decoder = vae.Decoder(config.width, (side, side), dtype, parent=None)
    widths = [spec.channels(name) for name in config.layers]
    return encoder, decoder, [vae.Adapter(width, dtype, parent=None) for width in widths]


class FAVAE(base.Detector[FAVAEConfig]):
    """FAVAE (Dehaene and Eline, 2020).

    Where the grids of decoder and teacher differ (VGG's are the decoder's, a ResNet's are coarser),
    the adapters resize to the teacher's, so that errors are taken where the teacher has features.
    """

    config: FAVAEConfig
    phases = ("gradient",)

    @property
    def outputs(self):
        return self.config.layers

    def setup(self):
        self.encoder, self.decoder, self.adapters = modules(self.config)

    def frozen_features(self, images):
        """The images and what they are compared with; augmented images have no fixed features."""
        return images if self.config.augment else self.targets(images)

    def targets(self, images: Array) -> dict[str, Array]:
        """What is to be restored: `images` and the teacher's maps by layer."""
        seen = images
        if not self.config.normalize_teacher:
            module = backbones.get(self.config.backbone).build()
            # ImageNet's are all backbones' but those that say otherwise.
            mean, deviation = getattr(module, "statistics", (resnet.MEAN, resnet.STD))
            seen = images * jnp.asarray(deviation) + jnp.asarray(mean)
        return {"images": images, **self.features(seen)}

    def restored(
        self, latent: Array, grids: Sequence[Sequence[int]], train: bool
    ) -> dict[str, Array]:
        """The same from latent vectors `[B, Z]`, the teacher's maps on `grids`."""
        images, maps = self.decoder(latent, train)
        found = {"images": images}
        for name, adapter, x, grid in zip(self.outputs, self.adapters, maps, grids, strict=True):
            found[name] = adapter(x, grid)
        return found

    def errors(self, targets: dict[str, Array], latent: Array, train: bool) -> dict[str, Array]:
        """Squared errors summed over channels of the image and by layer, `[B, h, w]` each."""
        grids = [targets[name].shape[1:3] for name in self.outputs]
        restored = self.restored(latent, grids, train)
        return {name: summed_squares(targets[name], x) for name, x in restored.items()}

    def loss(self, inputs):
        config = self.config
        keys = self.image_keys(len(inputs if config.augment else inputs["images"]))
        keys = jax.vmap(jax.random.split)(keys)
        if config.augment:
            inputs = self.targets(jax.vmap(augmented)(inputs, keys[:, 0]))
        mean, log_variance = map(full_precision, self.encoder(inputs["images"], train=True))
        latent = sampled(mean, log_variance, standard_normal(keys[:, 1], mean))
        errors = self.errors(inputs, latent, train=True)
        # Sums over pixels and channels: they alone balance image, features and divergence.
        metrics = {name: error.sum((1, 2)).mean() for name, error in errors.items()}
        divergence = kl_divergence(mean, log_variance).mean()
        loss = total(metrics.values()) + config.kld_weight * divergence
        return loss, metrics | {"kl": divergence}

    def __call__(self, images):
        mean, _ = self.encoder(images, train=False)
        anomaly_map = total(
            resample.upsample_and_smooth(error, images.shape[1:3], self.config.sigma)
            for error in self.errors(self.targets(images), mean, train=False).values()
        )
        return base.Prediction(anomaly_map.max((1, 2)), anomaly_map)

    def memory_estimate(self, images, devices):
        config = self.config
        key = jax.eval_shape(lambda: jax.random.key(0))

        def init(key):
            encoder, decoder, adapters = modules(config)
            image = jnp.zeros((1, config.input_size, config.input_size, 3))
            maps, made = decoder.init_with_output(key, jnp.zeros((1, config.latent_size)), False)
            parts = [a.init(key, x) for a, x in zip(adapters, maps[1], strict=True)]
            return [encoder.init(key, image, False), made, *parts]

        trained = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(init, key)))
        pixels = config.batch_size * config.input_size**2
        return {
            "backbone": self.backbone_bytes() * devices,
            "autoencoder, gradients, two moments": 4 * trained * base.FLOAT * devices,
            "activations of a batch": ACTIVATIONS * config.width * pixels * base.FLOAT,
        }
