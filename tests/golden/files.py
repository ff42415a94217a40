"""The golden files, the parameters that they were made with, and the one comparison with them."""

import os
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.golden import record

READMES = {
    "README-frozen-features.md": ("cfa", "padim", "patchcore", "rd4ad", "spade", "stpm"),
    "README-trained-from-scratch.md": ("csflow", "cutpaste", "draem", "fastflow", "favae"),
}


def shared_root() -> Path:
    """The folder of real data and golden files, which need not be there."""
    default = Path(__file__).resolve().parents[2].parent / "shared"
    return Path(os.environ.get("IMVAD_SHARED", default))


class Golden:
    """The arrays of one golden file, in PyTorch's layouts, and the comparison with them.

    A missing array and one of another shape fail the test with a message that names the README
    beside the file.
    """

    def __init__(self, path: Path, method: str):
        self.method = method
        self.readme = next(name for name, methods in READMES.items() if method in methods)
        self.where = f"{path.name} (see {self.readme} beside it)"
        with np.load(path) as arrays:
            self.arrays = dict(arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        """An array, or with a name that ends in `/` all below it by the rest of their names."""
        if name.endswith("/"):
            found = {k[len(name) :]: v for k, v in self.arrays.items() if k.startswith(name)}
        else:
            found = self.arrays.get(name)
        if found is None or (isinstance(found, dict) and not found):
            raise pytest.fail.Exception(f"{self.where} holds no '{name}'; {self._names()}")
        return found

    def _names(self) -> str:
        return "it holds " + ", ".join(sorted({name.split("/")[0] for name in self.arrays}))

    def check(self, quantity: str, ours, golden, tolerance: float) -> None:
        """Compares and records one array, or dictionaries of arrays with equal keys.

        The difference is the largest over the largest absolute golden value, of several arrays that
        of the worst; of whole numbers the share that differs. At most `tolerance` passes.
        """
        if not isinstance(golden, dict):
            ours, golden = {quantity: ours}, {quantity: golden}
        if ours.keys() != golden.keys():
            names = sorted(map(str, ours.keys() ^ golden.keys()))
            raise pytest.fail.Exception(f"{self.where}: '{quantity}': not in both: {names}")
        worst, kind, at = -1.0, "", None
        for name, expected in golden.items():
            found, expected = np.asarray(ours[name]), np.asarray(expected)
            if found.shape != expected.shape:
                raise pytest.fail.Exception(
                    f"{self.where}: '{quantity}', {name}: has shape {expected.shape}, expected "
                    f"{found.shape}"
                )
            difference = _difference(found, expected)
            if not difference <= worst:  # NaN is the worst
                worst, kind, at = difference, found.dtype.name, name
        record.add(self.method, quantity, worst, kind, tolerance)
        message = f"{self.method}: '{quantity}' differs by {worst:.2g}, {tolerance:.2g} is allowed"
        assert worst <= tolerance, message + (f" (worst: {at})" if len(golden) > 1 else "")


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(found != expected))
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def recipe(name: str, shape: tuple[int, ...], prefix: str = "") -> np.ndarray:
    """The parameter of this name in README-frozen-features.md; `shape` is PyTorch's."""
    z = np.random.default_rng(zlib.crc32((prefix + name).encode())).standard_normal(shape)
    if name.endswith("running_var"):
        z = np.abs(z) * 0.5 + 0.5
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif z.ndim >= 2:
        z = z * np.sqrt(1 / np.prod(shape[1:]))
    elif name.endswith("bias"):
        z = 0.05 * z
    else:
        z = 1 + 0.1 * z
    return z.astype(np.float32)


def images(count: int, size: int, seed: int) -> np.ndarray:
    """The images of README-frozen-features.md: uint8 `[count, size, size, 3]`."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (count, size // 8, size // 8, 3))
    large = np.kron(small, np.ones((1, 8, 8, 1), int))
    return (large + rng.integers(-20, 20, large.shape)).astype(np.uint8)


def as_float(pictures: np.ndarray, dtype=np.float32) -> np.ndarray:
    """uint8 images in [0, 1]."""
    return pictures.astype(dtype) / 255


def channels_last(array: np.ndarray) -> np.ndarray:
    """`[B, C, ...]` as `[B, ..., C]`."""
    return np.moveaxis(array, 1, -1)


def as_double(tree):
    """The arrays of a tree in float64; whole numbers stay."""

    def double(leaf):
        leaf = np.asarray(leaf)
        return leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf

    return jax.tree.map(double, tree)
