"""What every method is: a linen module and one pytree of variables.

Collections: `backbone` (frozen, pretrained), `params` and `batch_stats` (trained), `memory` (fitted
statistics, banks, fixed random draws). What is not fitted is absent.
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
from imvad_jax.ops import convolution, rows
from imvad_jax.ops.collectives import device_number

FLOAT = 4  # bytes


class Prediction(NamedTuple):
    """Scores `[B]` and maps `[B, H, W]` (`None`: image-only method); larger is more anomalous."""

    score: Array
    anomaly_map: Array | None


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Fields that every method has. Sizes in pixels."""

    backbone: str = "wide_resnet50_2"  # a name that --list shows
    image_size: int = 256  # images are resized to this square ...
    crop_size: int = 224  # ... and cropped at the centre to this; 0: no crop
    batch_size: int = 32  # over all devices
    # How images are resized: bilinear or lanczos; both are Pillow's, antialiased where they shrink.
    resize: str = "bilinear"
    # How masks are resized, and which of their pixels are a defect then: half (bilinear, at least
    # one half), nearest (the nearest pixel), or full (bilinear, but only what is wholly covered).
    mask_rule: str = "half"
    # How networks convolve: auto, by the rule of `ops.convolution` (on processors in faster forms
    # than XLA's own; PatchCore's products, too), or xla, for comparison. Results differ by
    # rounding.
    convolution: str = "auto"

    def __post_init__(self):
        choose("--convolution", self.convolution, convolution.FORMS)

    @property
    def input_size(self) -> int:
        """Side of the square that the method sees, pixels."""
        return self.crop_size or self.image_size

    @property
    def picture_dirs(self) -> dict[str, str]:
        """Collections of pictures that the training takes, by name, and the folder of each.

        An empty folder: the method draws them itself. A fit finds `images` (uint8 `[T, S, S, 3]`, S
        the input size) in the collection among its variables, and does not keep it.
        """
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the metrics has to know about these settings, a sentence each."""
        return ()

    def without_missing_layers(self) -> "DetectorConfig | None":
        """A configuration for weights that lack a layer this one needs; None if there is none."""
        return None


@dataclasses.dataclass(frozen=True)
class TrainedConfig(DetectorConfig):
    """Fields of methods with a gradient phase; the optimisers are PyTorch's."""

    epochs: int = 100
    optimizer: str = "adam"  # sgd, adam, adamw
    learning_rate: float = 1e-3
    weight_decay: float = 0.0  # coupled (added to the gradient) but for adamw
    momentum: float = 0.9  # of sgd
    beta1: float = 0.9  # of adam and adamw
    beta2: float = 0.999  # of adam and adamw
    epsilon: float = 1e-8  # of adam and adamw
    amsgrad: bool = False  # the variant of adam and adamw
    schedule: str = "constant"  # constant; cosine: to zero over all steps; or step:
    decay_at: tuple[float, ...] = (0.8, 0.9)  # after these shares of all steps ...
    decay_factor: float = 0.2  # ... the learning rate is multiplied by this
    gradient_clip: float = 0.0  # largest global norm of the gradient; 0: not clipped
    dtype: str = "float32"  # of the computation; parameters are float32 always
    # computes the frozen network's features of each training image once, before the first epoch,
    # and keeps them in memory for all epochs
    cache_features: bool = False
    steps_per_epoch: int = 0  # batches of an epoch; 0: as many as one pass over the images takes


# A detector's configuration. `Detector` alone is a detector of any method.
Config = TypeVar("Config", bound=DetectorConfig)


class Detector(nn.Module, Generic[Config]):
    """Base of all methods: `class MyMethod(Detector[MyConfig])` with the field `config: MyConfig`.

    A method defines `__call__(images) -> Prediction` and what its `phases` need. A statistics
    phase needs `init_accumulator`, `accumulate` and `finalize`; a gradient phase needs `loss`. All
    are called through `apply`. Images are RGB float32 in [0, 1], `[B, H, W, 3]`.
    """

    config: Config

    phases: ClassVar[tuple[str, ...]] = ("statistics",)
    # Arrays of `memory` with a row for each position `[h * w, ...]`, of which a device that scores
    # some rows of the images holds those of its own.
    of_positions: ClassVar[tuple[str, ...]] = ()
    # Whether nearly all that scoring costs goes through `ops.rows.by_rows`, not `features` alone.
    all_by_rows: ClassVar[bool] = False
    # Of a class in another package, which is named `package.module:Class`: how tables call it (the
    # name of the class, if nothing is said), and the presets that it has besides `official`, which
    # are the defaults of its configuration.
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
        """As of every linen module; networks convolve as the configuration says."""
        name = self.config.convolution
        with contextlib.nullcontext() if name == "auto" else convolution.forms(name):
            return super().apply(*arguments, **options)

    def init_memory(self, key: Array) -> dict[str, Any]:
        """The part of `memory` that is drawn at random before any image is seen."""
        return {}

    def init_accumulator(self, capacity: int) -> Any:
        """An empty accumulator for one device that will see at most `capacity` images."""
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def accumulate(self, accumulator: Any, images: Array, index: Array) -> Any:
        """Takes in a batch; `index` `[B]` is the image's number in the training set, -1 padding."""
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def flush(self, accumulator: Any) -> Any:
        """What `finalize` gets of one device, whose last batch is in. Compiled where overridden."""
        return accumulator

    def finalize(
        self, accumulators: Sequence[Any], count: int, key: Array, progress: "Progress"
    ) -> dict[str, Any]:
        """The fitted `memory` from the accumulators of all devices and the number of images."""
        raise TypeError(f"{type(self).__name__} has no statistics phase")

    def init_parameters(self, images: Array) -> None:
        """Touches every trainable part once, so that its parameters are made.

        Called before the first phase, with `mutable=["params", "batch_stats"]` and the rng streams
        `params` and `noise`.
        """
        self.image_loss(images)

    def start(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables that the fit starts from, given those just made; not called by `apply`.

        Where pretrained weights are trained, this moves them from `backbone` to the parameters.
        """
        return variables

    def trim_memory(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Fitted variables less the rows of the memory that only pad it; not called by `apply`.

        They give the same scores. Exports take them: padding lets categories share programs, and
        an export is of one.
        """
        return variables

    def frozen_features(self, images: Array) -> Any:
        """What the loss is computed from and no training changes: arrays `[B, ...]`.

        The features of a frozen teacher, say; by default the images. Uses neither parameters nor
        randomness, so that it may be computed once for all epochs (`cache_features`).
        """
        return images

    def loss(self, inputs: Any) -> tuple[Array, dict[str, Array]]:
        """The loss `[]` of a batch of good images, a mean over it, and metrics to log.

        `inputs` is what `frozen_features` gave. Called with `mutable=["batch_stats"]` and the rng
        stream `noise`.
        """
        raise TypeError(f"{type(self).__name__} has no gradient phase")

    def image_loss(self, images: Array) -> tuple[Array, dict[str, Array]]:
        """`loss` of images."""
        return self.loss(self.frozen_features(images))

    def image_keys(self, count: int) -> Array:
        """Keys `[count]` of the stream `noise`, one for each image of this device's batch.

        They depend on the image's place in the batch over all devices, so that the number of
        devices changes nothing.
        """
        first = device_number() * count
        key = self.make_rng("noise")
        return jax.vmap(lambda place: jax.random.fold_in(key, place))(first + jnp.arange(count))

    def compile_key(self) -> "Detector":
        """What compiled programs are looked up by: they do not depend on how long is trained."""
        if not isinstance(self.config, TrainedConfig):
            return self
        return self.clone(config=dataclasses.replace(self.config, epochs=0))

    def memory_estimate(self, images: int, devices: int) -> dict[str, int]:
        """Bytes by purpose that a fit on so many images and its scoring hold at their peak."""
        raise TypeError(f"{type(self).__name__} does not estimate its memory")

    def memory(self, name: str) -> Array:
        """A fitted array (loaded checkpoints hold numpy, which a traced index can't index)."""
        return jnp.asarray(self.get_variable("memory", name))

    def features(self, images: Array, outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Intermediates of the frozen backbone by name, `[B, h, w, C]` each."""
        variables = {
            name: self.get_variable("backbone", name)
            for name in ("params", "batch_stats")
            if self.has_variable("backbone", name)
        }
        dtype = getattr(self.config, "dtype", "float32")
        module = backbones.get(self.config.backbone).build(jnp.dtype(dtype))
        outputs = tuple(outputs or self.outputs)
        if self.has_variable(TRANSFORMED, "backbone"):
            variables[TRANSFORMED] = self.get_variable(TRANSFORMED, "backbone")
        if not self.is_mutable_collection(TRANSFORMED):
            return rows.by_rows(lambda x: module.apply(variables, x, outputs=outputs), images)
        found, changed = module.apply(variables, images, outputs=outputs, mutable=[TRANSFORMED])
        self.put_variable(TRANSFORMED, "backbone", changed.get(TRANSFORMED, {}))
        return found

    @property
    def by_rows(self) -> bool:
        """Whether several devices can share the rows of an image while it is scored."""
        return bool(self.outputs) and backbones.get(self.config.backbone).by_rows(self.outputs)

    def feature_shapes(
        self, outputs: Sequence[str] | None = None
    ) -> dict[str, tuple[int, int, int]]:
        """Shapes `(h, w, C)` of the intermediates for one image of the configured size."""
        size = self.config.input_size
        return _feature_shapes(self.config.backbone, size, tuple(outputs or self.outputs))

    def backbone_bytes(self) -> int:
        """Bytes of the frozen backbone."""
        if not self.outputs:
            return 0
        template = backbones.get(self.config.backbone).variables_template(self.outputs)
        return sum(leaf.size * FLOAT for leaf in jax.tree.leaves(template))


class Method(NamedTuple):
    """A method as the programs know it."""

    title: str  # as printed in tables
    detector: type[Detector]
    config: type[DetectorConfig]


# progress(total, label) gives a function to call with the number of newly finished units.
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


def config_from_strings(config: DetectorConfig, values: Mapping[str, str]) -> DetectorConfig:
    """`config` with fields replaced by values given as text (flags). A path may begin with `~`.

    Raises:
      UserError: a field that this config has not, or a value that is not of its type.
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


def row_mask(rows: int, count: Array) -> Array:
    """True for the first `count` of `rows` rows: bool `[rows]`."""
    return jnp.arange(rows) < count


def round_up(value: int, bucket: int) -> int:
    """The smallest multiple of `bucket` that is at least `value`."""
    return -(-value // bucket) * bucket
