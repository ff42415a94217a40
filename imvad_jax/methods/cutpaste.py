"""CutPaste: a classifier of pasted pieces learns features, to which a Gaussian is fitted.

Li, Sohn, Yoon, Pfister, "CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization", CVPR 2021, arXiv 2104.04015. There is no official code; what the paper leaves open
follows Runinho/pytorch-cutpaste.

What it learns: A network that tells good images from ones into which a rectangle of themselves was
pasted, then one Gaussian over its embeddings of good images. An image is as anomalous as its
Mahalanobis distance.

When to use it: No pretrained network may be used, or defects look like something in the wrong
place: a piece that is missing, turned or added. With `patch_size` it also gives a map, from many
overlapping squares.

When not: Defects are fine scratches or small: with a CPU's budget it ranks screws little better
than chance does. The map is coarse and slow, as the network sees each square by itself.
"""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from imvad_jax import backbones
from imvad_jax.errors import UserError, choose
from imvad_jax.layers.projection import ProjectionHead
from imvad_jax.methods import base, buffers
from imvad_jax.ops import affine, color, gaussian, windows
from imvad_jax.ops.cutpaste import cutpaste, scar
from imvad_jax.ops.precision import full_precision

CLASSES = {"cutpaste": 2, "scar": 2, "union": 2, "3way": 3}
SPREAD = 4  # patch size by the deviation of the Gaussian that spreads its distance: ours
EPSILON = 1e-12  # smallest norm that an embedding is divided by


@dataclasses.dataclass(frozen=True)
class CutPasteConfig(base.TrainedConfig):
    """Settings of CutPaste.

    `batch_size` counts originals: each comes with one or two augmented copies. The paper also
    shifts images at random, but not by how much.
    """

    backbone: str = "resnet18"
    crop_size: int = 0
    # Initialise the encoder from pretrained weights; otherwise at random.
    pretrained: bool = False
    # Backbone layer used as embedding; a feature map is averaged over its positions.
    embedding_layer: str = "pool"
    # Augmentations to tell from originals: cutpaste, scar, union (both as one class) or 3way (both
    # as classes of their own).
    variant: str = "3way"
    # Hidden layers of the projection head, each as wide as the embedding.
    head_layers: int = 1
    # Width of the last layer of the projection head; 0 means no head, only the classifier.
    head_dim: int = 128
    # Smallest area of a pasted piece, as a fraction of the image.
    area_min: float = 0.02
    # Largest area of a pasted piece, as a fraction of the image.
    area_max: float = 0.15
    # Aspect ratios of a piece are drawn from [aspect, 1 / aspect].
    aspect: float = 0.3
    # Smallest width of a scar, in pixels of a 256-pixel image.
    scar_width_min: float = 2.0
    # Largest width of a scar, in pixels of a 256-pixel image.
    scar_width_max: float = 16.0
    # Smallest length of a scar, in pixels of a 256-pixel image.
    scar_length_min: float = 10.0
    # Largest length of a scar, in pixels of a 256-pixel image.
    scar_length_max: float = 25.0
    # Largest rotation of a scar, in degrees to either side.
    scar_rotation: float = 45.0
    # Paste scars with hard edges, as Pillow's rotation leaves them; otherwise edges are blended.
    hard_edges: bool = False
    # Strength of the colour jitter of a piece: brightness, contrast, saturation and hue.
    piece_jitter: float = 0.1
    # Strength of the colour jitter of the whole image, before anything is pasted.
    image_jitter: float = 0.1
    # Largest rotation of every augmented image, in degrees to either side.
    image_rotation: float = 0.0
    # Divide embeddings by their norm before the Gaussian is fitted.
    normalize: bool = False
    # Localisation (section 3.3): train on square patches of this many pixels and return an anomaly
    # map (64 for 256-pixel images in the paper); 0 means whole images and no map.
    patch_size: int = 0
    # Distance between the patches that are scored, in pixels.
    patch_stride: int = 4
    # Image score when there is a map: map (largest value of the map) or patch (largest distance of
    # a patch, before distances are spread over the pixels).
    image_score: str = "map"
    # Original images per batch, summed over all devices; each comes with its augmented copies.
    batch_size: int = 32
    epochs: int = 256
    steps_per_epoch: int = 256
    optimizer: str = "sgd"
    learning_rate: float = 0.03
    weight_decay: float = 3e-5
    schedule: str = "cosine"

    def __post_init__(self):
        super().__post_init__()
        choose("--variant", self.variant, CLASSES)
        choose("--image_score", self.image_score, base.IMAGE_SCORES)
        for name in ("head_layers", "head_dim", "piece_jitter", "image_jitter"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name}={getattr(self, name)}: must not be negative")
        for name in ("area", "scar_width", "scar_length"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if not 0 < low <= high:
                raise UserError(
                    f"--{name}_min={low}, --{name}_max={high}: expected 0 < minimum <= maximum"
                )
        if self.area_max > 1:
            raise UserError(f"--area_max={self.area_max}: a share of the image is at most 1")
        if not 0 < self.aspect <= 1:
            raise UserError(f"--aspect={self.aspect}: must lie in (0, 1]")
        if not 0 <= self.patch_size <= self.input_size:
            raise UserError(
                f"--patch_size={self.patch_size}: expected 0 (no patches) to {self.input_size}, "
                "the pixels of the image"
            )
        if self.patch_stride < 1:
            raise UserError(f"--patch_stride={self.patch_stride}: must be at least 1")

    @property
    def seen_size(self) -> int:
        """Side of the square that the network sees, pixels."""
        return self.patch_size or self.input_size

    @property
    def fit_stride(self) -> int:
        """Pixels between the patches that the Gaussian is fitted to: closer ones say the same."""
        return max(self.patch_stride, self.patch_size // 4)


class CutPaste(base.Detector[CutPasteConfig]):
    """CutPaste (Li et al., 2021): the classifier first, then the Gaussian of its embeddings.

    The encoder is trained; `outputs`, what is asked of pretrained weights, is empty where it
    starts at random. The score is the Mahalanobis distance (paper, equation 2, but for its
    constants). Image-only, but for patches: they share one Gaussian, their distances are spread
    over the image, and the score is the largest value of that map.
    """

    config: CutPasteConfig
    phases = ("gradient", "statistics")

    @property
    def outputs(self):
        return (self.config.embedding_layer,) if self.config.pretrained else ()

    def setup(self):
        config = self.config
        dtype = jnp.dtype(config.dtype)
        self.encoder = backbones.get(config.backbone).build(dtype)
        widths = (self.embedding_dim,) * config.head_layers + (config.head_dim,)
        self.head = ProjectionHead(
            widths if config.head_dim else (), CLASSES[config.variant], dtype
        )

    @property
    def embedding_dim(self) -> int:
        """Values of an embedding."""
        return backbones.get(self.config.backbone).channels(self.config.embedding_layer)

    def start(self, variables):
        """Moves the pretrained weights to where they are trained; no frozen copy stays."""
        if not self.config.pretrained:
            return variables
        variables = dict(variables)
        for name, pretrained in variables.pop("backbone").items():
            variables[name] = variables.get(name, {}) | {"encoder": pretrained}
        return variables

    def embed(self, images: Array, train: bool = False) -> Array:
        """Embeddings `[B, D]`."""
        layer = self.config.embedding_layer
        found = full_precision(self.encoder(images, outputs=(layer,), train=train)[layer])
        return found.reshape(images.shape[0], -1, self.embedding_dim).mean(1)

    def classify(self, images: Array, train: bool) -> Array:
        """Logits `[B, classes]`, at least float32."""
        return full_precision(self.head(self.embed(images, train), train))

    def init_parameters(self, images):
        # The loss has the same parameters, but augments.
        size = self.config.seen_size
        self.classify(images[:, :size, :size], train=False)

    def augment(self, key: Array, image: Array) -> Array:
        """The original `[S, S, 3]` and its augmented copies, `[classes, S, S, 3]`.

        Of an image `[H, W, 3]`; S is its size, or that of a patch at a random place.
        """
        config = self.config
        keys = jax.random.split(key, 5)
        strength = config.image_jitter
        if config.patch_size:
            room = image.shape[0] - config.patch_size + 1
            corner = jax.random.randint(jax.random.fold_in(key, 0), (2,), 0, room)
            image = lax.dynamic_slice(image, (*corner, 0), (*(config.patch_size,) * 2, 3))
        if config.image_jitter:
            image = color.jitter(
                keys[0], image, brightness=strength, contrast=strength, saturation=strength,
                hue=strength,
            )  # fmt: skip

        def cut():
            area = (config.area_min, config.area_max)
            return cutpaste(keys[1], image, area, config.aspect, config.piece_jitter)[0]

        def scarred():
            width = (config.scar_width_min, config.scar_width_max)
            length = (config.scar_length_min, config.scar_length_max)
            return scar(
                keys[2], image, width=width, length=length, rotation=config.scar_rotation,
                jitter=config.piece_jitter, hard=config.hard_edges,
            )[0]  # fmt: skip

        match config.variant:
            case "cutpaste":
                ways = [image, cut()]
            case "scar":
                ways = [image, scarred()]
            case "union":
                ways = [image, jnp.where(jax.random.bernoulli(keys[3]), cut(), scarred())]
            case _:  # 3way
                ways = [image, cut(), scarred()]
        ways = jnp.stack(ways)
        if config.image_rotation:
            reach = jnp.deg2rad(config.image_rotation)
            angles = jax.random.uniform(keys[4], (len(ways),), minval=-reach, maxval=reach)
            ways = jax.vmap(affine.rotate)(ways, angles)
        return ways

    def loss(self, inputs):
        """Cross entropy `[]`, a mean over all images and ways; the label is the way."""
        keys = self.image_keys(inputs.shape[0])
        ways = lax.stop_gradient(jax.vmap(self.augment)(keys, inputs))
        # Batch normalisation sees all ways together.
        logits = self.classify(ways.reshape(-1, *ways.shape[2:]), train=True)
        labels = jnp.tile(jnp.arange(ways.shape[1]), inputs.shape[0])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, {"accuracy": jnp.mean(logits.argmax(-1) == labels)}

    def represent(self, images: Array) -> Array:
        """What the Gaussian is of: embeddings `[B, D]`, of unit length if so configured."""
        return self.unit_length(self.embed(images))

    def represent_patches(self, images: Array, stride: int) -> Array:
        """The same of all patches, `stride` pixels apart: `[B, h, w, D]`."""
        layer, size = self.config.embedding_layer, self.config.patch_size
        # Flax lets no bound module into a loop of JAX's.
        variables = self.encoder.variables
        encoder = backbones.get(self.config.backbone).build(jnp.dtype(self.config.dtype))

        def embed(patches):
            maps = encoder.apply(variables, patches, outputs=(layer,))
            found = full_precision(cast("dict[str, Array]", maps)[layer])
            return found.reshape(patches.shape[0], -1, self.embedding_dim).mean(1)

        return self.unit_length(windows.map_windows(embed, images, size, stride))

    def unit_length(self, embeddings: Array) -> Array:
        """Embeddings `[..., D]`, divided by their norm if so configured."""
        if not self.config.normalize:
            return embeddings
        squared = jnp.sum(embeddings**2, -1, keepdims=True)
        return embeddings * lax.rsqrt(jnp.maximum(squared, EPSILON**2))

    def init_accumulator(self, capacity):
        shape = (self.fitted_patches, self.embedding_dim)
        return buffers.init_buffer(capacity, {"embeddings": shape})

    @property
    def fitted_patches(self) -> int:
        """Embeddings that an image gives to the Gaussian."""
        config = self.config
        starts = windows.window_starts(config.input_size, config.seen_size, config.fit_stride)
        return len(starts) ** 2

    def accumulate(self, accumulator, images, index):
        if self.config.patch_size:
            embeddings = self.represent_patches(images, self.config.fit_stride)
        else:
            embeddings = self.represent(images)
        rows = embeddings.reshape(images.shape[0], self.fitted_patches, self.embedding_dim)
        return buffers.append(accumulator, index, {"embeddings": rows})

    def finalize(self, accumulators, count, key, progress):
        embeddings = buffers.collect(accumulators, "embeddings", count)
        embeddings = embeddings.reshape(-1, self.embedding_dim)
        mean, whitening = gaussian.shrunk_gaussian(embeddings)
        return {"mean": jnp.asarray(mean[None]), "whitening": jnp.asarray(whitening[None])}

    def __call__(self, images):
        config = self.config
        mean, whitening = (self.memory(name) for name in ("mean", "whitening"))
        if not config.patch_size:
            embeddings = self.represent(images)[:, None]
            return base.Prediction(gaussian.mahalanobis(embeddings, mean, whitening)[:, 0], None)
        patches = self.represent_patches(images, config.patch_stride)
        rows = patches.reshape(-1, 1, self.embedding_dim)  # they share one Gaussian
        distances = gaussian.mahalanobis(rows, mean, whitening).reshape(patches.shape[:3])
        anomaly_map = windows.spread_windows(
            distances, images.shape[1:3], config.patch_size, config.patch_stride,
            config.patch_size / SPREAD,
        )  # fmt: skip
        scores = base.image_scores(distances, anomaly_map, config.image_score)
        return base.Prediction(scores, anomaly_map)

    def memory_estimate(self, images, devices):
        spec = backbones.get(self.config.backbone)
        layer, size = self.config.embedding_layer, self.config.seen_size
        encoder = spec.variables_template((layer,))
        pictures = self.config.batch_size * CLASSES[self.config.variant]
        batch = jax.ShapeDtypeStruct((pictures, size, size, 3), jnp.float32)

        def pull_back(variables, batch):
            def embed(variables):
                module = spec.build(jnp.dtype(self.config.dtype))
                return module.apply(variables, batch, (layer,), True, mutable=["batch_stats"])

            return jax.vjp(embed, variables)[1]  # holds all that the gradient needs

        dim = self.embedding_dim
        return {
            "encoder, gradients, optimiser state": 5 * base.tree_bytes(encoder) * devices,
            "embeddings and their covariance": base.FLOAT
            * (images * self.fitted_patches * dim + 8 * dim**2),
            "activations of a batch": base.tree_bytes(jax.eval_shape(pull_back, encoder, batch)),
            "augmented images": 4 * base.tree_bytes(batch),
        }
