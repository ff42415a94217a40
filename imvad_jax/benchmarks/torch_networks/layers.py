"""Our variables as PyTorch's tensors, and the layers that several networks share.

Maps are `[B, C, h, w]` in PyTorch's memory format channels last, kernels too.
"""

# PyTorch is no dependency, and may be absent.
# pyright: reportMissingImports=false

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def nchw(array: np.ndarray, device: torch.device) -> Tensor:
    """`[B, H, W, C]` in host memory as `[B, C, H, W]` on the device; others as they are."""
    tensor = torch.from_numpy(array).to(device)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def in_unit_range(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; float32 ones as they are."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


class Converter:
    """Our trees of arrays as PyTorch's tensors, in its layouts."""

    def __init__(self, device: torch.device):
        self.device = device

    def __call__(self, tree: dict, transposed: bool = False) -> dict:
        """The same tree of float32; all kernels are of convolutions, or all `transposed`."""
        found = {}
        for name, value in tree.items():
            if not isinstance(value, dict):
                found[name] = self._tensor(np.array(value, np.float32), transposed)
            elif set(value) == {"conv"} and set(value["conv"]) == {"kernel"}:
                # decoder.UpConv: a 1x1 convolution to windows of 2x2
                kernel = np.array(value["conv"]["kernel"], np.float32)[0, 0]
                windows = kernel.reshape(len(kernel), 2, 2, -1).transpose(1, 2, 0, 3)
                found[name] = {"up": self._tensor(windows, True)}
            else:
                found[name] = self(value, transposed)
        return found

    def memory(self, tree: dict) -> dict:
        """Fitted arrays by name: whole numbers as int64, others as float32."""
        arrays = {name: np.array(value) for name, value in tree.items()}
        kinds = {n: np.int64 if a.dtype.kind in "iu" else np.float32 for n, a in arrays.items()}
        return {n: torch.from_numpy(a.astype(kinds[n])).to(self.device) for n, a in arrays.items()}

    def _tensor(self, array: np.ndarray, transposed: bool) -> Tensor:
        tensor = torch.from_numpy(array).to(self.device)
        if tensor.ndim == 2:  # of a linear layer
            return tensor.T.contiguous()
        if tensor.ndim == 3:  # of a layer norm over maps
            return tensor.permute(2, 0, 1).contiguous()
        if tensor.ndim == 4:
            order = (2, 3, 0, 1) if transposed else (3, 2, 0, 1)
            return tensor.permute(order).contiguous(memory_format=torch.channels_last)
        return tensor


class Layers:
    """Layers from parameters and running statistics by name."""

    def __init__(self, params: dict, stats: dict, train: bool = True):
        self.params, self.stats, self.train = params, stats, train

    def __getitem__(self, name: str) -> "Layers":
        return Layers(self.params[name], self.stats.get(name, {}), self.train)

    def __contains__(self, name: str) -> bool:
        return name in self.params

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int | None = None) -> Tensor:
        """A convolution, padded by half its window; or one that enlarges (`decoder.UpConv`)."""
        p = self.params[name]
        if "up" in p:
            return F.conv_transpose2d(x, p["up"], stride=2)
        if padding is None:
            padding = p["kernel"].shape[-1] // 2
        return F.conv2d(x, p["kernel"], p.get("bias"), stride, padding)

    def linear(self, x: Tensor, name: str) -> Tensor:
        """A linear layer."""
        p = self.params[name]
        return F.linear(x, p["kernel"], p.get("bias"))

    def norm(self, x: Tensor, name: str) -> Tensor:
        """A batch norm."""
        of, p = self.stats[name], self.params[name]
        return F.batch_norm(x, of["mean"], of["var"], p["scale"], p["bias"], self.train, 0.1, 1e-5)

    def normed(self, x: Tensor, conv: str, norm: str, stride: int = 1) -> Tensor:
        """A convolution and its batch norm."""
        return self.norm(self.conv(x, conv, stride), norm)

    def block(self, x: Tensor, stride: int) -> Tensor:
        """A ResNet's block to the sum before its ReLU."""
        deep = "conv3" in self.params
        y = F.relu(self.normed(x, "conv1", "bn1", 1 if deep else stride))
        y = self.normed(y, "conv2", "bn2", stride if deep else 1)
        if deep:
            y = self.normed(F.relu(y), "conv3", "bn3")
        if "downsample_0" in self.params:
            x = self.normed(x, "downsample_0", "downsample_1", stride)
        return x + y

    def stack(self, x: Tensor, prefix: str, stride: int) -> Tensor:
        """Blocks `<prefix>0`, `<prefix>1`, ..., a ReLU between them; the last sum before its own.

        The first one has the stride.
        """
        index = 0
        while f"{prefix}{index}" in self:
            x = self[f"{prefix}{index}"].block(F.relu(x) if index else x, 1 if index else stride)
            index += 1
        return x

    def resnet(self, x: Tensor, outputs: tuple[str, ...]) -> dict[str, Tensor]:
        """Outputs by name (`layer1`, `layer1_pre`, ..., `pool`) of normalised images."""
        x = F.max_pool2d(F.relu(self.normed(x, "conv1", "bn1", 2)), 3, 2, 1)
        found = {}
        for stage in (1, 2, 3, 4):
            pre = self.stack(x, f"layer{stage}_", 2 if stage > 1 else 1)
            x = F.relu(pre)
            found |= {f"layer{stage}_pre": pre, f"layer{stage}": x}
            if set(outputs) <= found.keys():
                break
        else:
            found["pool"] = x.mean((2, 3))
        return {name: found[name] for name in outputs}


def leaves(tree: dict) -> list[Tensor]:
    """The tensors of a tree, in the order of our own."""
    return jax.tree.leaves(tree)
