"""Settings that make anomalib do the same work as one of our methods; remaining differences.

A method without an equivalent in anomalib, or a setting that it cannot be given, is refused.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from imvad_jax import methods
from imvad_jax.benchmarks.anomalib_processes import Request
from imvad_jax.errors import UserError
from imvad_jax.methods import Detector, DetectorConfig
from imvad_jax.methods.base import TrainedConfig
from imvad_jax.methods.draem import DRAEMConfig
from imvad_jax.methods.rd4ad import RD4ADConfig

LEAST_EPOCHS = 2  # the first one holds compilation
NETWORKS = ("resnet18", "wide_resnet50_2")  # that anomalib's trained methods have, and we


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """anomalib's model of a method of ours.

    `settings` are the arguments that its class is given. `fixed` are fields that have another name
    or no name there: they keep their defaults. `backbones` are those that it can have; empty: any
    ResNet, whose layers have the same names. `trains` is how it trains, which it cannot be told
    otherwise, by fields of ours. `notes` say what differs besides.
    """

    model: str  # as the driver has it
    settings: Callable[[Detector], dict]
    fixed: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    trains: Mapping[str, object] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def _same(*names: str, **renamed: str) -> Callable[[Detector], dict]:
    """Arguments that are fields of ours, by theirs."""
    given = {name: name for name in names} | renamed
    return lambda detector: {key: getattr(detector.config, name) for key, name in given.items()}


def _of_patchcore(detector: Detector) -> dict:
    config = detector.config
    return {
        "coreset_sampling_ratio": config.coreset_ratio,
        "num_neighbors": config.reweight_neighbors or 1,
    }


ADAM = {  # as PyTorch has it, at a constant rate
    "optimizer": "adam", "learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
    "amsgrad": False, "weight_decay": 0.0, "gradient_clip": 0.0, "schedule": "constant",
}  # fmt: skip
PEERS = {  # by class of ours
    "PaDiM": Peer(model="padim", settings=lambda detector: {"n_features": detector.dim}),
    "PatchCore": Peer(model="patchcore", settings=_of_patchcore, fixed=("num_neighbors",)),
    "STPM": Peer(
        model="stpm", settings=lambda detector: {},
        trains={"optimizer": "sgd", "learning_rate": 0.4, "momentum": 0.9, "weight_decay": 1e-3,
                "summed_loss": True, "student_start": "random"},
    ),
    "RD4AD": Peer(
        model="rd4ad", settings=lambda detector: {}, fixed=("layers", "embedding_channels"),
        backbones=NETWORKS,
        trains=ADAM | {"learning_rate": 5e-3, "beta1": 0.5, "beta2": 0.99},
    ),
    "FastFlow": Peer(
        model="fastflow", settings=_same("flow_steps", "conv3x3_only", "hidden_ratio"),
        fixed=("layers", "clamp"), backbones=NETWORKS, trains=ADAM | {"weight_decay": 1e-5},
    ),
    "CFA": Peer(
        model="cfa",
        settings=_same(
            "gamma_c", "gamma_d", "radius", num_nearest_neighbors="num_neighbors",
            num_hard_negative_features="num_negatives",
        ),
        fixed=("layers", "nu", "alpha"), backbones=NETWORKS,
        trains=ADAM | {"optimizer": "adamw", "weight_decay": 5e-4, "amsgrad": True},
        notes=("anomalib does not train the radius",),
    ),
    "DRAEM": Peer(
        model="draem", settings=lambda detector: {},
        fixed=(
            "reconstructive_widths", "discriminative_widths", "own_textures", "brightness_shift",
            "matched_textures",
        ),
        backbones=("none",), trains=ADAM | {"learning_rate": 1e-4},
        notes=("anomalib makes its anomalies on the host, image by image",),
    ),
    "CSFlow": Peer(
        model="csflow",
        settings=_same(
            "clamp", n_coupling_blocks="flow_blocks", cross_conv_hidden_channels="hidden"
        ),
        fixed=("layer",),
        trains=ADAM | {"learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.9, "epsilon": 1e-4,
                       "weight_decay": 1e-5, "gradient_clip": 1.0},
        backbones=("efficientnet_b5_static", "tf_efficientnet_b5"),
        notes=(
            "both backbones are an EfficientNet-B5 started at random (anomalib's is torchvision's, "
            "which cannot be given our weights): the AUROC says nothing of the method",
        ),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run: the driver's arguments, and how a training is told by both programs."""

    arguments: list[str]
    epochs: int = 0  # 0: the method is not trained
    notes: tuple[str, ...] = ()


def compared() -> str:
    """The methods that can be compared, as in `padim, patchcore`."""
    names = [n for n in methods.METHODS if methods.get(n).detector.__name__ in PEERS]
    return ", ".join(sorted(names))


def check_weights(weights: str) -> None:
    """Raises UserError for weights that anomalib cannot be given."""
    if weights != "random" and Path(weights).suffix != ".safetensors":
        raise UserError(
            f"--compare=anomalib: --weights={weights} cannot be put into anomalib; expected a "
            ".safetensors file with timm's names, or random"
        )


def check_epochs(asked: Mapping[str, tuple[DetectorConfig, Mapping[str, str]]]) -> None:
    """Raises UserError where a trained method that is compared is not told its few epochs.

    `asked` holds configuration and overrides by method.
    """
    for name, (config, overrides) in asked.items():
        if not isinstance(config, TrainedConfig):
            continue
        if methods.get(name).detector.__name__ not in PEERS:
            continue  # refused later, as its other figures can be measured
        if "epochs" not in overrides or config.epochs < LEAST_EPOCHS:
            given = f"--epochs={config.epochs}" if "epochs" in overrides else "--epochs is missing"
            raise UserError(
                f"--compare=anomalib: {given}; expected the epochs of {name}'s whole fits, "
                f"{LEAST_EPOCHS} or more (the first one holds compilation)"
            )


def _refuse(problem: str) -> NoReturn:
    raise UserError(f"--compare=anomalib: {problem}")


def _check(peer: Peer, request: Request, config: DetectorConfig, platform: str) -> None:
    """Raises UserError for settings that the peer does not have."""
    if peer.backbones and config.backbone not in peer.backbones:
        _refuse(
            f"{request.method} with backbone {config.backbone}; anomalib's can have "
            f"{' or '.join(peer.backbones)}"
        )
    if not peer.backbones and "resnet" not in config.backbone:
        _refuse(f"backbone {config.backbone}; layers of ResNets alone have the same names there")
    trained = ("dtype",) if isinstance(config, TrainedConfig) else ()
    for name in (*peer.fixed, *trained):
        if getattr(config, name) != (expected := getattr(type(config)(), name)):
            text = ",".join(map(str, expected)) if isinstance(expected, tuple) else expected
            _refuse(f"{request.method} with --{name}={text} only")
    widened = isinstance(config, RD4ADConfig) and config.wide_embedding
    if widened and config.backbone != "resnet18":
        _refuse(f"{request.method} with --wide_embedding=false only on {config.backbone}")
    if peer.model == "csflow" and request.weights != "random":
        _refuse(f"--weights={request.weights} cannot be put into its EfficientNet; expected random")
    if platform != "cpu":
        _refuse("JAX computes on an accelerator; the CPU is compared")


def make_plan(request: Request, detector: Detector, platform: str) -> Plan:
    """The same work, asked of anomalib. Raises UserError where there is no such."""
    peer = PEERS.get(type(detector).__name__)
    config = detector.config
    if peer is None:
        _refuse(f"{request.method} is not compared; {compared()} are")
    _check(peer, request, config, platform)
    found = {
        "model": peer.model,
        "root": request.data_dir,
        "category": request.category,
        "image_size": config.image_size,
        "crop_size": config.crop_size,
        "batch_size": config.batch_size,
        "workers": os.cpu_count(),
        "seed": request.seed,
        "settings": json.dumps(peer.settings(detector)),
    }
    if "resnet" in config.backbone:
        found |= {"backbone": config.backbone, "layers": ",".join(config.layers)}
        if request.weights != "random":
            found["weights"] = request.weights
    epochs = 0
    if isinstance(config, TrainedConfig):
        check_epochs({request.method: (config, request.overrides)})
        epochs = found["epochs"] = config.epochs
        found["steps_per_epoch"] = config.steps_per_epoch
    if textures := getattr(config, "texture_dir", ""):
        found["textures"] = textures
    arguments = [f"--{key}={value}" for key, value in found.items()]
    return Plan(arguments=arguments, epochs=epochs, notes=_notes(peer, config))


def _notes(peer: Peer, config: DetectorConfig) -> tuple[str, ...]:
    """What differs between the two programs although the same is asked of them."""
    found = list(peer.notes)
    other = [
        f"--{name}={str(value).lower()}" for name, value in peer.trains.items()
        if getattr(config, name) != value
    ]  # fmt: skip
    if other:
        found.append(f"anomalib trains with {', '.join(other)}")
    if getattr(config, "cache_features", False):
        found.append("ours computes the frozen network's features once (--cache_features)")
    if isinstance(config, DRAEMConfig) and not config.texture_dir:
        found.append("anomalib's anomalies are noise, ours textures that the program draws")
    return tuple(found)
