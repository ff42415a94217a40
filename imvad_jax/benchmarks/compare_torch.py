"""The same work in plain PyTorch, measured in turn with ours. Imported where PyTorch is installed.

Plain: eager, channels last, no compilation, batch norms as they are. The weights are ours, so that
the results can be compared: a part's `difference` is the largest one over the largest value.
"""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import abc
from collections.abc import Callable

import jax
import numpy as np
import torch
import torch.nn.functional as F

from imvad_jax.benchmarks.frozen_backbone import frozen_backbone
from imvad_jax.benchmarks.in_turn import largest_difference, timed
from imvad_jax.benchmarks.torch_networks.frozen import ResNet, is_resnet
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.errors import UserError
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.score import score

STARTS = 10  # random rows that anchor the first pick of the coreset
TRUNCATE = 4  # standard deviations that the Gaussian reaches to each side


def compare(subject: Subject) -> dict:
    """`{versions, threads, device, parts: {work: {ours_s, theirs_s, ratio, difference}}}`.

    `ratio` is theirs over ours, of the medians. Raises UserError for a backbone that is no ResNet.
    """
    detector = subject.detector
    accelerated = subject.parallel.local[0].platform == "gpu"
    if accelerated and not torch.cuda.is_available():
        raise UserError("--compare=torch: JAX computes on a GPU, but this PyTorch sees none")
    device = torch.device("cuda" if accelerated else "cpu")
    found = {
        "versions": {"torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "device": str(device),
        "parts": {},
    }
    if not detector.outputs:
        return found
    backbone = subject.variables.get("backbone", {})
    if not is_resnet(detector.config.backbone, backbone.get("params", {}), detector.outputs):
        raise UserError(
            f"--compare=torch: {detector.config.backbone} with outputs "
            f"{', '.join(detector.outputs)} is not built here; expected a frozen ResNet and "
            "layer1 ... layer4"
        )
    with torch.inference_mode():
        network = ResNet(backbone, detector.outputs, device)
        found["parts"]["backbone"] = compare_backbone(subject, network)
        if work := WORK.get(type(detector).__name__):
            found["parts"] |= compare_work(subject, work(subject, network))
    return found


def repeated(work: Callable[[], object]) -> Callable[[int], None]:
    """A call that does the work so many times and waits for PyTorch."""

    def call(count):
        for _ in range(count):
            work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return call


def compare_backbone(
    subject: Subject, network: Callable[[np.ndarray], dict[str, torch.Tensor]]
) -> dict:
    """A batch of uint8 images in host memory to its feature maps on the device."""
    size = subject.parallel.here().batch_size(subject.batch_size)
    images = next(iter(subject.images.batches(size))).images
    backbone, name = frozen_backbone(subject, size), subject.detector.outputs[-1]

    def ours(count):
        jax.block_until_ready([backbone(images) for _ in range(count)])

    found = network(images)[name].permute(0, 2, 3, 1).cpu().numpy()
    difference = largest_difference(np.reshape(backbone(images)[name], found.shape), found)
    return timed(subject.options, ours, repeated(lambda: network(images)), difference)


def compare_work(subject: Subject, theirs: "Work") -> dict:
    """The whole fit and the scoring of all images."""
    detector, images, parallel = subject.detector, subject.images, subject.parallel
    start = init_variables(detector, subject.variables["backbone"], subject.seed)

    def fit_ours(count):
        for _ in range(count):
            fit(detector, start, images, parallel, subject.seed)

    def score_ours(count):
        for _ in range(count):
            score(detector, subject.variables, images, parallel, subject.batch_size)

    fitted = timed(subject.options, fit_ours, repeated(theirs.fit), None)
    theirs.fit()
    ours = score(detector, subject.variables, images, parallel, subject.batch_size)
    theirs.adopt()
    difference = largest_difference(ours.maps, theirs.score())
    scored = timed(subject.options, score_ours, repeated(theirs.score), difference)
    return {"fit": fitted, "score": scored}


class Work(abc.ABC):
    """What a method does over all images of a subject."""

    @abc.abstractmethod
    def fit(self) -> None:
        """The whole fit."""

    @abc.abstractmethod
    def adopt(self) -> None:
        """Takes over what ours has fitted where that depends on random draws."""

    @abc.abstractmethod
    def embed(self, images: np.ndarray) -> torch.Tensor:
        """Patch features `[B, P, D]` of uint8 images."""

    @abc.abstractmethod
    def distances(self, embedding: torch.Tensor) -> torch.Tensor:
        """The value `[B, P]` of each patch."""

    def __init__(self, subject: Subject, network: ResNet):
        self.subject, self.network = subject, network
        self.config, self.layers = subject.detector.config, subject.detector.config.layers

    def batches(self):
        """uint8 images of a batch, the last one as short as it is."""
        for batch in self.subject.images.batches(self.subject.batch_size):
            yield batch.images[batch.valid]

    def memory(self, name: str) -> torch.Tensor:
        """A fitted array of ours."""
        array = np.array(self.subject.variables["memory"][name])
        return torch.from_numpy(array).to(self.network.device)

    def score(self) -> np.ndarray:
        """Anomaly maps `[N, H, W]` of all images, in host memory."""
        return np.concatenate([self.maps(images).cpu().numpy() for images in self.batches()])

    def maps(self, images: np.ndarray) -> torch.Tensor:
        """Anomaly maps `[B, H, W]`: enlarged bilinearly, then smoothed."""
        distances = self.distances(self.embed(images))
        side = round(distances.shape[1] ** 0.5)
        grid = distances.reshape(-1, 1, side, side)
        x = F.interpolate(grid, size=images.shape[1:3], mode="bilinear", align_corners=False)
        half = int(TRUNCATE * self.config.sigma + 0.5)
        taps = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
        taps = torch.exp(-0.5 * (taps / self.config.sigma) ** 2)
        taps = taps / taps.sum()
        for axis in (2, 3):
            first, last = x.narrow(axis, 0, half), x.narrow(axis, x.shape[axis] - half, half)
            x = torch.cat([first.flip(axis), x, last.flip(axis)], axis)
            x = F.conv2d(x, taps.view(1, 1, -1, 1) if axis == 2 else taps.view(1, 1, 1, -1))
        return x[:, 0]


class PaDiM(Work):
    """PaDiM: a Gaussian a position, from the embeddings of all images at once."""

    def __init__(self, subject, network):
        super().__init__(subject, network)
        self.channels = self.memory("channels").long()

    def embed(self, images):
        maps = self.network(images)
        grid = maps[self.layers[0]].shape[2:]
        stacked = torch.cat([F.interpolate(maps[n], grid, mode="nearest") for n in self.layers], 1)
        return stacked[:, self.channels].flatten(2).transpose(1, 2)

    def fit(self):
        samples = torch.cat([self.embed(images) for images in self.batches()]).transpose(0, 1)
        self.mean = samples.mean(1, keepdim=True)
        centred = samples - self.mean
        covariance = centred.transpose(1, 2) @ centred / (samples.shape[1] - 1)
        covariance += self.config.regularization * torch.eye(
            samples.shape[2], device=samples.device
        )
        self.inverse = torch.linalg.inv(covariance)

    def adopt(self):
        """Nothing: the fit has no random draw but the channels, which are ours."""

    def distances(self, embedding):
        centred = embedding.transpose(0, 1) - self.mean
        return ((centred @ self.inverse) * centred).sum(-1).clamp_min(0).sqrt().T


class PatchCore(Work):
    """PatchCore as its official code: unfold, two adaptive pools, a greedy coreset.

    With `aggregation=local_average`: an average pool, scaled or pooled over channels.
    """

    def __init__(self, subject, network):
        super().__init__(subject, network)
        if self.config.num_neighbors != 1 or self.config.reweight_neighbors:
            raise UserError(
                "--compare=torch: PatchCore with one neighbour and no re-weighting only"
            )

    def embed(self, images):
        if self.config.aggregation == "local_average":
            return self.averages(images)
        maps, size, dim = self.network(images), self.config.patch_size, self.config.embedding_dim
        grid, parts = maps[self.layers[0]].shape[2:], []
        for name in self.layers:
            height, width = maps[name].shape[2:]
            patches = F.unfold(maps[name], size, padding=(size - 1) // 2)
            if (height, width) != tuple(grid):
                patches = patches.unflatten(2, (height, width))
                patches = F.interpolate(patches, grid, mode="bilinear", align_corners=False)
                patches = patches.flatten(2)
            patches = patches.transpose(1, 2).flatten(0, 1)[:, None]
            parts.append(F.adaptive_avg_pool1d(patches, dim))
        pooled = F.adaptive_avg_pool1d(torch.cat(parts, 2), dim)
        return pooled.view(len(images), -1, dim)

    def averages(self, images):
        """Patch vectors `[B, P, D]` of the paper's local average."""
        maps, size = self.network(images), self.config.patch_size
        share = self.config.embedding_dim // len(self.layers)
        grid, parts = maps[self.layers[0]].shape[2:], []
        for name in self.layers:
            part = F.avg_pool2d(maps[name], size, 1, (size - 1) // 2)
            if part.shape[2:] != grid:
                part = F.interpolate(part, grid, mode="bilinear", align_corners=False)
            part = part.flatten(2).transpose(1, 2)
            more = part.shape[2] > share
            parts.append(
                F.adaptive_avg_pool1d(part, share)
                if more
                else part * (share / part.shape[2]) ** 0.5
            )
        return torch.cat(parts, 2)

    def fit(self):
        patches = torch.cat([self.embed(images) for images in self.batches()]).flatten(0, 1)
        projected = patches @ self.random_projection(patches)
        starts = torch.randint(len(projected), (STARTS,), device=patches.device)
        distances = torch.cdist(projected, projected[starts]).mean(1)
        picks = []
        for _ in range(self.subject.detector.bank_rows(len(self.subject.images))):
            row = distances.argmax()
            picks.append(row)
            distances = torch.minimum(distances, (projected - projected[row]).norm(dim=1))
        self.bank = patches[torch.stack(picks)]

    def random_projection(self, patches):
        """A fresh draw of the size of ours."""
        size = (patches.shape[1], self.config.projection_dim)
        return torch.empty(size, device=patches.device).uniform_(-1, 1) / size[0] ** 0.5

    def adopt(self):
        """Our bank, since the picks depend on random starts."""
        rows = int(self.subject.variables["memory"]["bank_count"])
        self.bank = self.memory("bank")[:rows] + self.memory("center")

    def distances(self, embedding):
        # A matrix of one image's patches against the bank at a time, as memory allows no more.
        return torch.stack([torch.cdist(rows, self.bank).amin(1) ** 2 for rows in embedding])


WORK = {"PaDiM": PaDiM, "PatchCore": PatchCore}
