"""The training steps of STPM, RD4AD and FastFlow, and their backbone, in plain PyTorch.

Each eager and by torch.compile, in turn with ours. All begin with our variables; a part's
`difference` is that of the first loss, or of the features. Imported where PyTorch is installed.
"""

import math
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F

from imvad_jax.backbones.resnet import MEAN, STD
from imvad_jax.benchmarks.compare_torch import ResNet, compare_backbone, is_resnet, repeated, timed
from imvad_jax.benchmarks.workloads import Subject, before_training, training_call
from imvad_jax.errors import UserError
from imvad_jax.layers.coupling import SOFTPLUS_BETA, SUBNET_FACTOR
from imvad_jax.training.job import as_float
from imvad_jax.training.optimizers import make_optimizer

COMPILED = ", torch.compile"


def compare(subject: Subject) -> dict:
    """As `compare_torch.compare`, of the parts `backbone` and `training step`, eager and compiled.

    What torch.compile cannot compile is named in `notes`.

    Raises:
      UserError: a method or backbone that is not built here, or another dtype or schedule.
    """
    detector, device = subject.detector, find_device(subject)
    name, backbone = type(detector).__name__, subject.variables.get("backbone", {})
    if name not in LOSSES or not is_resnet(detector, backbone):
        raise UserError(
            f"--compare=torch_steps: {name} with {detector.config.backbone} is not built here; "
            f"expected {', '.join(LOSSES)} with a ResNet"
        )
    if detector.config.dtype != "float32" or detector.config.schedule != "constant":
        raise UserError("--compare=torch_steps: with --dtype=float32 --schedule=constant alone")
    network = ResNet(backbone, detector.outputs, device)
    with torch.no_grad():
        parts = {"backbone": compare_backbone(subject, network)}
    notes = []
    try:
        compiled = ResNet(backbone, detector.outputs, device)
        compiled.features = torch.compile(compiled.features)
        with torch.no_grad():
            parts["backbone" + COMPILED] = compare_backbone(subject, compiled)
    except RuntimeError as error:
        notes.append(f"backbone{COMPILED}: {str(error).splitlines()[0][:200]}")
    start = before_training(subject)
    _, ours = training_call(subject, cache_features=False)
    expected = our_loss(subject, start)
    for suffix, wrap in (("", lambda loss: loss), (COMPILED, torch.compile)):
        try:
            step = Step(subject, start, network, wrap)
            difference = abs(float(step()) - expected) / abs(expected)
            parts["training step" + suffix] = timed(subject, ours, repeated(step), difference)
        except RuntimeError as error:
            notes.append(f"training step{suffix}: {str(error).splitlines()[0][:200]}")
    return {
        "versions": {"torch": torch.__version__}, "threads": torch.get_num_threads(),
        "device": str(device), "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32, "parts": parts, "notes": notes,
    }  # fmt: skip


def find_device(subject: Subject) -> torch.device:
    """Where PyTorch computes. Raises UserError where it does not see the GPU that JAX uses."""
    accelerated = subject.parallel.local[0].platform == "gpu"
    if accelerated and not torch.cuda.is_available():
        raise UserError("--compare: JAX computes on a GPU, but this PyTorch sees none")
    return torch.device("cuda" if accelerated else "cpu")


def first_batch(subject: Subject) -> np.ndarray:
    """The images `[B, H, W, 3]` that all steps take."""
    size = subject.detector.config.batch_size
    order = np.resize(np.arange(len(subject.images)), size)
    return next(iter(subject.images.take(order).batches(size))).images


def our_loss(subject: Subject, variables: dict) -> float:
    """Our loss of the first batch before any step."""

    def loss(variables, images):
        found, _ = subject.detector.apply(
            variables, as_float(images), method="image_loss", mutable=["batch_stats"]
        )
        return found[0]

    return float(jax.jit(loss)(variables, first_batch(subject)))


class Step:
    """A training step: a batch in host memory, loss, gradients, update. Called, gives the loss."""

    def __init__(self, subject: Subject, variables: dict, teacher: ResNet, wrap: Callable):
        config, self.device = subject.detector.config, teacher.device
        self.images, self.teacher = first_batch(subject), teacher
        make_optimizer(config, 1)  # refuses what it does not know
        convert = Converter(self.device)
        self.params = convert(variables["params"])
        stats = convert(variables.get("batch_stats", {}))
        memory = {k: np.array(v) for k, v in variables.get("memory", {}).items()}
        self.memory = {k: torch.from_numpy(v).long().to(self.device) for k, v in memory.items()}
        loss = LOSSES[type(subject.detector).__name__]
        self.loss = wrap(lambda images: loss(self, config, Trained(self.params, stats), images))
        leaves = [leaf.requires_grad_() for leaf in jax.tree.leaves(self.params)]
        rate, decay = config.learning_rate, config.weight_decay
        if config.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(leaves, rate, config.momentum, weight_decay=decay)
        else:
            betas = (config.beta1, config.beta2)
            self.optimizer = torch.optim.Adam(leaves, rate, betas, config.epsilon, decay)

    def __call__(self) -> torch.Tensor:
        images = torch.from_numpy(self.images).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(images)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The teacher's, without gradients."""
        with torch.no_grad():
            return self.teacher.features(images)


class Converter:
    """Our trees of arrays as PyTorch's tensors, in its layouts."""

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(self, tree: dict) -> dict:
        """The same tree; transposed convolutions are told by their name."""
        found = {}
        for name, value in tree.items():
            if not isinstance(value, dict):
                found[name] = self._tensor(np.array(value, np.float32))
            elif set(value) == {"conv"}:  # decoder.UpConv: a 1x1 convolution to windows of 2x2
                kernel = np.array(value["conv"]["kernel"], np.float32)[0, 0]
                windows = kernel.reshape(len(kernel), 2, 2, -1).transpose(0, 3, 1, 2)
                found[name] = {"up": torch.from_numpy(windows.copy()).to(self.device)}
            else:
                found[name] = self(value)
        return found

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array).to(self.device)
        if tensor.ndim == 3:  # of a layer norm over maps
            return tensor.permute(2, 0, 1).contiguous()
        if tensor.ndim == 4:
            return tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
        return tensor


class Trained:
    """Layers with batch statistics, from parameters and running statistics by name."""

    def __init__(self, params: dict, stats: dict):
        self.params, self.stats = params, stats

    def __getitem__(self, name: str) -> "Trained":
        return Trained(self.params[name], self.stats.get(name, {}))

    def __contains__(self, name: str) -> bool:
        return name in self.params

    def normed(self, x, conv: str, norm: str, stride: int = 1):
        """A convolution, which may enlarge, and its batch norm."""
        if "up" in self.params[conv]:
            x = F.conv_transpose2d(x, self.params[conv]["up"], stride=2)
        else:
            kernel = self.params[conv]["kernel"]
            x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        of, p = self.stats[norm], self.params[norm]
        return F.batch_norm(x, of["mean"], of["var"], p["scale"], p["bias"], True, 0.1, 1e-5)

    def block(self, x, stride: int):
        """A ResNet's block to the sum before its ReLU."""
        deep = "conv3" in self.params
        y = F.relu(self.normed(x, "conv1", "bn1", 1 if deep else stride))
        y = self.normed(y, "conv2", "bn2", stride if deep else 1)
        if deep:
            y = self.normed(F.relu(y), "conv3", "bn3")
        if "downsample_0" in self.params:
            x = self.normed(x, "downsample_0", "downsample_1", stride)
        return x + y

    def stack(self, x, prefix: str, stride: int):
        """Blocks `<prefix>0`, `<prefix>1`, ..., a ReLU between them; the last sum before its own.

        The first one has the stride.
        """
        index = 0
        while f"{prefix}{index}" in self:
            x = self[f"{prefix}{index}"].block(F.relu(x) if index else x, 1 if index else stride)
            index += 1
        return x


def stpm(step: Step, config, trained: Trained, images):
    """The student's distance to the teacher's unit vectors."""
    teacher, net = step.features(images), trained["student"]
    mean, std = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (MEAN, STD))
    x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    x = F.max_pool2d(F.relu(net.normed(x, "conv1", "bn1", 2)), 3, 2, 1)
    loss = 0.0
    for stage in range(1, 5):
        if f"layer{stage}_0" not in net:
            break
        x = F.relu(net.stack(x, f"layer{stage}_", 2 if stage > 1 else 1))
        if (name := f"layer{stage}") in config.layers:
            a, b = F.normalize(teacher[name], dim=1), F.normalize(x, dim=1)
            loss = loss + ((a - b) ** 2).sum(1).mean()
    return loss * (config.batch_size / 2 if config.summed_loss else 1)


def rd4ad(step: Step, config, trained: Trained, images):
    """One minus the cosine of the teacher's maps and the restored ones."""
    teacher = step.features(images)
    maps, net, fused = [teacher[name] for name in config.layers], trained["embedding"], []
    for level, x in enumerate(maps):
        for down in range(len(maps) - level - 1):
            name = f"fuse{level}_{down}"
            x = F.relu(net.normed(x, f"{name}_conv", f"{name}_bn", 2))
        fused.append(x)
    x, loss = F.relu(net.stack(torch.cat(fused, 1), "block", 2)), 0.0
    for stage, wanted in enumerate(reversed(maps)):
        x = F.relu(trained["decoder"].stack(x, f"stage{stage}_", 2))
        flat = (x, wanted) if config.per_position_loss else (x.flatten(1), wanted.flatten(1))
        loss = loss + (1 - F.cosine_similarity(*flat, dim=1)).mean()
    return loss


def fastflow(step: Step, config, trained: Trained, images):
    """The negative log-likelihood of the normalised features."""
    total = 0.0
    for name, x in step.features(images).items():
        norm, flow = trained.params[f"norms_{name}"], trained.params[f"flows_{name}"]
        x, log_det = F.layer_norm(x, x.shape[1:], norm["scale"], norm["bias"]), 0.0
        for number, permutation in enumerate(step.memory[f"permutations_{name}"]):
            x, more = coupled(x, flow[f"step_{number}"], permutation, config.clamp)
            log_det = log_det + more
        total = total + (0.5 * (x**2).sum((1, 2, 3)) - log_det).mean()
    return total


def coupled(x, p: dict, permutation, clamp: float):
    """One step of a flow and its log-determinant `[B]`."""
    active = x.shape[1] // 2
    passive, moved = x[:, : x.shape[1] - active], x[:, x.shape[1] - active :]
    y = passive
    for name in ("conv1", "conv2"):
        kernel = p["subnet"][name]["kernel"]
        y = F.conv2d(y, kernel, p["subnet"][name]["bias"], padding=kernel.shape[-1] // 2)
        y = F.relu(y) if name == "conv1" else SUBNET_FACTOR * y
    log_scale = clamp * torch.tanh(y[:, :active])
    x = torch.cat([passive, moved * torch.exp(log_scale) + y[:, active:]], 1)
    scale = 0.1 * F.softplus(p["global_scale"], beta=SOFTPLUS_BETA)
    x = x * scale.view(-1, 1, 1) + p["global_offset"].view(-1, 1, 1)
    positions = math.prod(x.shape[2:])
    return x[:, permutation], log_scale.sum((1, 2, 3)) + positions * torch.log(scale).sum()


LOSSES = {"STPM": stpm, "RD4AD": rd4ad, "FastFlow": fastflow}
