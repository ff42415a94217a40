"""The training steps of all trained methods, and their backbones, in plain PyTorch.

Each eager and by torch.compile, in turn with ours. All begin with our variables; a part's
`difference` is that of the first loss, or of the features. Imported where PyTorch is installed.
"""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from imvad_jax.benchmarks.columns import number
from imvad_jax.benchmarks.compare_torch import compare_backbone, repeated
from imvad_jax.benchmarks.in_turn import check_same
from imvad_jax.benchmarks.measure import measure, ratio, summary
from imvad_jax.benchmarks.steps_report import COMPILED, KEPT, STEP
from imvad_jax.benchmarks.torch_networks import NETWORKS, Network, frozen
from imvad_jax.benchmarks.torch_networks.batch import Batch, drawing_call
from imvad_jax.benchmarks.torch_networks.layers import nchw
from imvad_jax.benchmarks.torch_networks.optimizer import Optimizer
from imvad_jax.benchmarks.workloads import Subject, before_training, training_call
from imvad_jax.errors import UserError
from imvad_jax.training import gradient

# Variables that limit the instructions of PyTorch, its convolutions and its products.
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
EAGER = ""
# By the end of a part's name. Sizes are fixed, and kernels for any size would be slower.
HOW = {EAGER: lambda work: work, COMPILED: partial(torch.compile, dynamic=False)}


def compare(subject: Subject) -> dict:
    """As `compare_torch.compare`, of the backbone and the training step, eager and compiled.

    Where a training may keep what it does not change, the step is compared once more with that
    kept on both sides. `notes` name what is in PyTorch's favour and what it could not do: what
    has another result than ours is no part.

    Raises:
      UserError: a method or backbone that is not built here, or another dtype.
    """
    device = find_device(subject)
    kind, teacher = find_network(subject, device)
    parts, notes = {}, _limits()
    for suffix, wrap in _ways().items():
        if not teacher:
            break
        try:
            with torch.no_grad():
                parts["backbone" + suffix] = compare_backbone(subject, Wrapped(teacher, wrap))
        except (RuntimeError, UserError) as error:
            notes.append(f"backbone{suffix}: {_first_line(error)}")
    started = dataclasses.replace(subject, variables=before_training(subject))
    try:
        parts |= compare_steps(started, kind, teacher, device, notes)
    except RuntimeError as error:  # memory, mostly
        notes.append(f"{STEP}: {_first_line(error)}")
    return {
        "versions": {"torch": torch.__version__}, "threads": torch.get_num_threads(),
        "device": str(device), "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32, "parts": parts, "notes": notes,
    }  # fmt: skip


def _limits() -> list[str]:
    """A note of the instructions that PyTorch is limited to; none where it is free."""
    found = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    if not found:
        return []
    return [f"PyTorch is limited by {' '.join(found)}, to which torch.compile does not keep"]


def _ways() -> dict[str, Callable]:
    """How PyTorch computes: eager, and compiled where that keeps to its limits."""
    return {EAGER: HOW[EAGER]} if _limits() else HOW


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def find_device(subject: Subject) -> torch.device:
    """Where PyTorch computes. Raises UserError where it does not see the GPU that JAX uses."""
    accelerated = subject.parallel.local[0].platform == "gpu"
    if accelerated and not torch.cuda.is_available():
        raise UserError("--compare: JAX computes on a GPU, but this PyTorch sees none")
    return torch.device("cuda" if accelerated else "cpu")


def find_network(
    subject: Subject, device: torch.device
) -> tuple[type[Network], frozen.Frozen | None]:
    """The method's network and the frozen backbone that it looks at. Raises UserError."""
    detector, variables = subject.detector, subject.variables
    name, config = type(detector).__name__, detector.config
    if name not in NETWORKS:
        raise UserError(
            f"--compare=torch_steps: {name} is not built here; expected {', '.join(NETWORKS)}"
        )
    kind, teacher = NETWORKS[name], None
    missing = kind.missing(detector)
    if not missing and (backbone := variables.get("backbone")):
        teacher = frozen.build(config.backbone, backbone, detector.outputs, device)
        if teacher is None:
            missing = f"{config.backbone} with outputs {', '.join(detector.outputs)}"
    if missing:
        raise UserError(
            f"--compare=torch_steps: {name} with {missing} is not built here; expected a ResNet, "
            "or VGG-16 where it is frozen"
        )
    if config.dtype != "float32":
        raise UserError(f"--compare=torch_steps: --dtype={config.dtype}; expected float32")
    return kind, teacher


class Wrapped:
    """A frozen backbone, its work on the device eager or compiled."""

    def __init__(self, network: frozen.Frozen, wrap: Callable):
        self.device, self.features = network.device, wrap(network.features)

    def __call__(self, images: np.ndarray) -> dict[str, torch.Tensor]:
        """Feature maps by name of uint8 images `[B, H, W, 3]` in host memory."""
        return self.features(nchw(images, self.device))


class Step:
    """A training step: a batch in host memory, loss, gradients, update. Called, gives the loss."""

    def __init__(self, network: Network, inputs: dict[str, Any], steps: int):
        self.network, self.inputs = network, inputs
        self.optimizer = Optimizer(network.leaves, network.config, steps)

    def __call__(self) -> torch.Tensor:
        batch = jax.tree.map(lambda array: nchw(array, self.network.device), self.inputs)
        self.optimizer.zero_grad()
        loss = self.network.loss(batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def make_step(
    subject: Subject, kind: type[Network], teacher: frozen.Frozen | None, device: torch.device,
    batch: Batch, *, kept: bool = False, wrap: Callable = HOW[EAGER],
) -> Step:  # fmt: skip
    """PyTorch's step from the variables of a subject, with parameters of its own."""
    network = kind(subject.detector, subject.variables, teacher, device, wrap)
    config = subject.detector.config
    steps = gradient.epoch_steps(len(subject.images), config) * config.epochs
    return Step(network, batch.inputs(subject, kept), steps)


def compare_steps(
    subject: Subject, kind: type[Network], teacher: frozen.Frozen | None, device: torch.device,
    notes: list[str],
) -> dict[str, dict]:  # fmt: skip
    """The parts of the training step, all timed in turn; `notes` takes what PyTorch could not."""
    batch, calls, differences = Batch.of(subject, kind), {}, {}
    if favour := kind.in_its_favour(subject.detector.config):
        calls["drawing"] = drawing_call(subject, kind, batch)
    for work, kept in ((STEP, False), (KEPT, True)):
        if kept and not kind.keeps(subject.detector.config):
            continue
        _, calls[work, "ours"] = training_call(subject, cache_features=kept)
        for suffix, wrap in _ways().items():
            try:
                step = make_step(subject, kind, teacher, device, batch, kept=kept, wrap=wrap)
                difference = abs(float(step()) - batch.loss) / abs(batch.loss)
                check_same(difference)
                differences[work, suffix] = difference
                calls[work, suffix] = repeated(step)
            except (RuntimeError, UserError) as error:
                notes.append(f"{work}{suffix}: {_first_line(error)}")
    options = subject.options
    samples = measure(calls, options.repeats, options.least_seconds, settle=True)
    if favour:
        alone = number(summary(samples["drawing"].wall)["median"])
        notes.append(f"in PyTorch's favour, {favour}; alone that takes {alone} s")
    return {
        work + suffix: {
            "ours_s": summary(samples[work, "ours"].wall),
            "theirs_s": summary(samples[work, suffix].wall),
            "ratio": ratio(samples, (work, suffix), (work, "ours")),
            "difference": difference,
        }
        for (work, suffix), difference in differences.items()
    }
