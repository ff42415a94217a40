"""How far the scores of one detector differ between the device and the CPU."""

from pathlib import Path

import numpy as np

from imvad_jax.archives import DAMAGE, read_arrays
from imvad_jax.errors import UserError

EXACT = 1e-3  # of the range of the CPU's, with float32 products
# With faster products: TF32 rounds features to 5e-4 of their size, and PaDiM's whitening enlarges
# what is small; ten times that is generous, and far below what parts and defects differ by.
FASTER = 2e-2


def compare(device: Path, cpu: Path, products: str, tolerance: float) -> dict:
    """Largest differences of scores and maps over the range of the CPU's.

    `device` and `cpu` are run directories with predictions.npz of the same images; `products` says
    how the device computed.

    Raises:
      UserError: a file is missing, or they are of other images.
    """
    one, two = _read(device), _read(cpu)
    if one["path"].tolist() != two["path"].tolist():
        raise UserError(f"{device} and {cpu}: predictions of different images")
    scores = _share(one["image_score"], two["image_score"])
    maps = _share(one["anomaly_map"], two["anomaly_map"])
    return {
        "products": products,
        "images": len(one["path"]),
        "score_difference": scores,
        "map_difference": maps,
        "tolerance": tolerance,
        "within": max(scores, maps) <= tolerance,
    }


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        raise UserError(f"predictions of shape {found.shape} and {expected.shape}")
    return float(np.abs(found - expected).max() / np.ptp(expected))


def _read(run: Path) -> dict[str, np.ndarray]:
    path = run / "predictions.npz"
    try:
        return read_arrays(path, ("path", "image_score", "anomaly_map"))
    except DAMAGE as error:
        raise UserError(f"{path}: no predictions of images with maps ({error})") from None
