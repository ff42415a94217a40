"""The base class of all methods: a linen module with one pytree of variables.

Collections: `backbone` (pretrained, frozen), `params` and `batch_stats` (trained), `memory` (fitted
statistics, memory banks, fixed random draws). A collection is absent until it is fitted.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax import backbones
from imvad_jax.errors import UserError, choose
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.methods import given_maps
from imvad_jax.ops import convolution, rows
from imvad_jax.ops.collectives import device_number

FLOAT = 4  # bytes
IMAGE_SCORES = ("patch", "map")  # what an image's score is the largest value of


class Prediction(NamedTuple):
    """Scores `[B]` and anomaly maps `[B, H, W]`, or None; larger values are more anomalous."""

    score: Array
    anomaly_map: Array | None


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Settings that every method has. Sizes are in pixels."""

    # The pretrained network whose features the method uses; --list prints the names.
    backbone: str = "wide_resnet50_2"
    # Images are resized to a square of this many pixels per side. Raise it to find smaller defects,
    # at the cost of time and memory.
    image_size: int = 256
    # The resized image is cropped at its centre to this many pixels per side; 0 means no crop.
    # Nothing outside the crop is inspected.
    crop_size: int = 224
    # Images per batch, summed over all devices. Lower it if memory runs out.
    batch_size: int = 32
    # Filter that resizes images: bilinear or lanczos, both from Pillow and both antialiased.
    resize: str = "bilinear"
    # How masks are resized: half (bilinear, defective where at least one half), nearest (nearest
    # pixel) or full (bilinear, defective only where fully covered).
    mask_rule: str = "half"
    # Implementation of convolutions: auto uses faster forms than XLA's on CPUs (also for the
    # nearest-neighbour search of PatchCore); xla always uses XLA's, for comparison. Results differ
    # only by rounding.
    convolution: str = "auto"

    def __post_init__(self):
        choose("--convolution", self.convolution, convolution.FORMS)

    @property
    def input_size(self) -> int:
        """Side of the square input image of the method, in pixels."""
        return self.crop_size or self.image_size

    @property
    def picture_dirs(self) -> dict[str, str]:
        """Folders of additional training images, by the name of their collection of variables.

        An empty name of a folder means that the method draws these images itself. During a fit, the
        collection holds `images` (uint8 `[T, S, S, 3]`, S the input size); it is dropped after it.
        """
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Caveats about these settings for readers of the metrics, one sentence each."""
        return ()

    def without_missing_layers(self) -> "DetectorConfig | None":
        """A configuration that avoids layers which weights may lack; None if there is none."""
        return None


@dataclasses.dataclass(frozen=True)
class TrainedConfig(DetectorConfig):
    """Settings of methods with a gradient phase. The optimisers follow PyTorch's update rules."""

    # Number of training epochs.
    epochs: int = 100
    # Optimiser: sgd, adam or adamw, each with PyTorch's update rule.
    optimizer: str = "adam"
    # Initial learning rate.
    learning_rate: float = 1e-3
    # Weight decay: added to the gradient for sgd and adam, decoupled for adamw.
    weight_decay: float = 0.0
    # Momentum of sgd.
    momentum: float = 0.9
    # Decay rate of the first moment, for adam and adamw.
    beta1: float = 0.9
    # Decay rate of the second moment, for adam and adamw.
    beta2: float = 0.999
    # Added to the denominator of the update, for adam and adamw.
    epsilon: float = 1e-8
    # Use the AMSGrad variant of adam or adamw.
    amsgrad: bool = False
    # Learning-rate schedule: constant, cosine (down to zero over all steps) or step (see decay_at).
    schedule: str = "constant"
    # With schedule=step: fractions of all steps after which the learning rate is decayed.
    decay_at: tuple[float, ...] = (0.8, 0.9)
    # With schedule=step: factor by which each decay multiplies the learning rate.
    decay_factor: float = 0.2
    # Gradients are clipped to this global norm; 0 disables clipping.
    gradient_clip: float = 0.0
    # Precision of the computation: float32, or bfloat16 on accelerators. Parameters are always
    # stored in float32.
    dtype: str = "float32"
    # Compute the features of the frozen network once per training image, before the first epoch,
    # and keep them in host memory for all epochs. Faster per step, but needs memory for all images.
    cache_features: bool = False
    # Batches per epoch; 0 means one pass over the training images.
    steps_per_epoch: int = 0


# A detector's configuration. `Detector` alone is a detector of any method.
Config = TypeVar("Config", bound=DetectorConfig)


class Detector(nn.Module, Generic[Config]):
    """Base class of all methods: `class MyMethod(Detector[MyConfig])`, field `config: MyConfig`.

    A method defines `__call__(images) -> Prediction` and the methods that its `phases` need: a
    statistics phase needs `init_accumulator`, `accumulate` and `finalize`, a gradient phase needs
    `loss`. All of them are called through `apply`. Images are RGB float32 in [0, 1],
    `[B, H, W, 3]`.
    """

    config: Config

    phases: ClassVar[tuple[str, ...]] = ("statistics",)
    # Arrays of `memory` with one row per position, `[h * w, ...]`. When images are split by rows,
    # each device holds only the rows of its own positions.
    of_positions: ClassVar[tuple[str, ...]] = ()
    # Whether nearly all of the scoring goes through `ops.rows.by_rows`, not only `features`.
    all_by_rows: ClassVar[bool] = False
    # For a class of another package (`package.module:Class`): its title in tables, by default the
    # name of the class, and its presets besides `official`, which consists of the defaults.
    title: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, DetectorConfig]] = {}

    if TYPE_CHECKING:  # linen makes it, which checkers cannot know

        def __hash__(self) -> int: ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """Backbone intermediates in use; none without a backbone."""
        return ()

    @property
    def sharded(self) -> tuple[str, ...]:
        """Arrays of `memory` of which each device holds its part of the rows while scoring."""
        return ()

    def apply(self, *arguments: Any, **options: Any) -> Any:
        """`nn.Module.apply`, with the implementation of convolutions that `config` selects."""
        name = self.config.convolution
        with contextlib.nullcontext() if name == "auto" else convolution.forms(name):
            return super().apply(*arguments, **options)

    def init_memory(self, key: Array) -> dict[str, Any]:
        """Returns the part of `memory` that is drawn at random before any image is seen."""
        return {}

    def init_accumulator(self, capacity: int) -> Any:
        """Returns an empty accumulator for one device that will see at most `capacity` images."""
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def accumulate(self, accumulator: Any, images: Array, index: Array) -> Any:
        """Returns the accumulator with a batch added.

        `index` `[B]` is the index of each image in the training set, or -1 for padding.
        """
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def flush(self, accumulator: Any) -> Any:
        """Returns the accumulator of one device after its last batch, with pending work done.

        `finalize` receives the result. It is compiled if a method overrides it.
        """
        return accumulator

    def finalize(
        self, accumulators: Sequence[Any], count: int, key: Array, progress: "Progress"
    ) -> dict[str, Any]:
        """Returns the fitted `memory`, from the accumulators of all devices and `count` images."""
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def init_parameters(self, images: Array) -> None:
        """Calls every trainable module once, so that its parameters are created.

        It is called before the first phase, with `mutable=["params", "batch_stats"]` and the RNG
        streams `params` and `noise`.
        """
        self.image_loss(images)

    def start(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Returns the variables from which the fit starts, given the initial ones.

        A method that trains pretrained weights moves them from `backbone` to `params` here. It is
        not called through `apply`.
        """
        return variables

    def trim_memory(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Returns fitted variables without padding rows of the memory; scores do not change.

        Padding lets categories share compiled programs, which an export does not need. It is not
        called through `apply`.
        """
        return variables

    def frozen_features(self, images: Array) -> Any:
        """Returns the inputs of the loss that training does not change: arrays `[B, ...]`.

        An example is the features of a frozen teacher; the default is the images. It must use
        neither parameters nor randomness, so that it may be computed once for all epochs
        (`cache_features`).
        """
        return images

    def loss(self, inputs: Any) -> tuple[Array, dict[str, Array]]:
        """Returns the loss `[]`, averaged over a batch of good images, and metrics to log.

        `inputs` is the result of `frozen_features`. It is called with `mutable=["batch_stats"]` and
        the RNG stream `noise`.
        """
        raise TypeError(f"{type(self).__name__} has no gradient phase")

    def image_loss(self, images: Array) -> tuple[Array, dict[str, Array]]:
        """Returns `loss` for a batch of images `[B, H, W, 3]`."""
        return self.loss(self.frozen_features(images))

    def image_keys(self, count: int) -> Array:
        """Returns keys `[count]` of the stream `noise`, one per image of this device's batch.

        They depend only on the place of the image in the global batch, so that results do not
        depend on the number of devices.
        """
        first = device_number() * count
        key = self.make_rng("noise")
        return jax.vmap(lambda place: jax.random.fold_in(key, place))(first + jnp.arange(count))

    def compile_key(self) -> "Detector":
        """The key of compiled programs: the detector without its number of epochs."""
        if not isinstance(self.config, TrainedConfig):
            return self
        return self.clone(config=dataclasses.replace(self.config, epochs=0))

    def memory_estimate(self, images: int, devices: int) -> dict[str, int]:
        """Peak memory in bytes, by purpose, of a fit on `images` images and of scoring."""
        raise TypeError(f"{type(self).__name__} does not estimate its memory")

    def memory(self, name: str) -> Array:
        """Returns an array of the collection `memory` as a JAX array.

        Loaded checkpoints hold NumPy arrays, which a traced index cannot index.
        """
        return jnp.asarray(self.get_variable("memory", name))

    def features(self, images: Array, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Returns feature maps `[B, h, w, C]` of the frozen backbone by name."""
        outputs = tuple(outputs or self.outputs)
        if (known := given_maps.find(images, outputs)) is not None:
            return known
        variables = {
            name: self.get_variable("backbone", name)
            for name in ("params", "batch_stats")
            if self.has_variable("backbone", name)
        }
        dtype = getattr(self.config, "dtype", "float32")
        module = backbones.get(self.config.backbone).build(jnp.dtype(dtype))
        if self.has_variable(TRANSFORMED, "backbone"):
            variables[TRANSFORMED] = self.get_variable(TRANSFORMED, "backbone")
        if not self.is_mutable_collection(TRANSFORMED):
            return rows.by_rows(lambda x: module.apply(variables, x, outputs=outputs), images)
        found, changed = module.apply(variables, images, outputs=outputs, mutable=[TRANSFORMED])
        self.put_variable(TRANSFORMED, "backbone", changed.get(TRANSFORMED, {}))
        return found

    @property
    def by_rows(self) -> bool:
        """Whether an image can be split by rows over several devices while it is scored."""
        return bool(self.outputs) and backbones.get(self.config.backbone).by_rows(self.outputs)

    def feature_shapes(
        self, outputs: Sequence[str] | None = None
    ) -> dict[str, tuple[int, int, int]]:
        """Returns the shape `(h, w, C)` of each feature map for the configured input size."""
        size = self.config.input_size
        return _feature_shapes(self.config.backbone, size, tuple(outputs or self.outputs))

    def backbone_bytes(self) -> int:
        """Size of the frozen backbone's variables in bytes."""
        if not self.outputs:
            return 0
        template = backbones.get(self.config.backbone).variables_template(self.outputs)
        return sum(leaf.size * FLOAT for leaf in jax.tree.leaves(template))


class Method(NamedTuple):
    """An entry of the registry of methods."""

    title: str  # as printed in tables
    detector: type[Detector]
    config: type[DetectorConfig]


# progress(total, label) returns a function to call with the number of newly finished units.
Progress = Callable[[int, str], Callable[[int], None]]


@functools.lru_cache
def _feature_shapes(backbone: str, size: int, outputs: tuple[str, ...]):
    spec = backbones.get(backbone)
    with rows.whole():
        shapes = jax.eval_shape(
            lambda variables, images: spec.build().apply(variables, images, outputs=outputs),
            spec.variables_template(outputs),
            jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
        )
    return {name: cast("tuple[int, int, int]", shapes[name].shape[1:]) for name in outputs}


@functools.lru_cache(maxsize=64)
def frozen_shapes(detector: Detector) -> Any:
    """Shapes and types of `frozen_features` of one image, a pytree of `jax.ShapeDtypeStruct`.

    Kept, since deep backbones take seconds to trace. `detector` is a `compile_key`.
    """
    variables = {}
    if detector.outputs:
        spec = backbones.get(detector.config.backbone)
        variables["backbone"] = spec.variables_template(detector.outputs)
    size = detector.config.input_size
    one = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    with rows.whole():
        apply = functools.partial(detector.apply, method="frozen_features")
        return jax.eval_shape(apply, variables, one)


def tree_bytes(tree: Any) -> int:
    """Size in bytes of the arrays of a pytree, or of what stands for them."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def config_from_strings(config: DetectorConfig, values: Mapping[str, str]) -> DetectorConfig:
    """Returns `config` with fields replaced by values given as text (flags).

    A path may begin with `~`.

    Raises:
      UserError: The configuration has no such field, or a value has the wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    changes = {}
    for name, text in values.items():
        if name not in fields:
            raise UserError(
                f"--{name}: {type(config).__name__} has no such field; valid: {', '.join(fields)}"
            )
        default = getattr(config, name)
        try:
            path = fields[name].metadata.get("path")
            changes[name] = _parse(default, os.path.expanduser(text) if path else text)
        except ValueError:
            kind = type(default).__name__
            if default and isinstance(default, tuple):
                kind += f" of {type(default[0]).__name__}"
            raise UserError(f"--{name}={text}: expected a value of type {kind}") from None
    return dataclasses.replace(config, **changes)


def _parse(default: Any, text: str):
    kind = type(default)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind is tuple:
        item = type(default[0]) if default else str
        return tuple(item(part.strip()) for part in text.split(",") if part.strip())
    return kind(text)


def image_scores(grid: Array, anomaly_map: Array, choice: str) -> Array:
    """Scores `[B]`: the largest value of each map.

    Args:
      grid: `[B, h, w]`, one value a patch, as it was found.
      anomaly_map: `[B, H, W]`, the same enlarged and smoothed.
      choice: `patch` takes that of the grid, `map` that of the map.
    """
    return (grid if choice == "patch" else anomaly_map).max((1, 2))


def row_mask(rows: int, count: Array) -> Array:
    """Returns a mask, bool `[rows]`, that is True for the first `count` rows."""
    return jnp.arange(rows) < count


def round_up(value: int, bucket: int) -> int:
    """Returns the smallest multiple of `bucket` that is at least `value`."""
    return -(-value // bucket) * bucket
