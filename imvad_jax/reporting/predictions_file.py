"""Stores maps and masks as arrays of predictions.npz, also if their sizes differ."""

from collections.abc import Mapping, Sequence

import numpy as np


def pack_maps(maps: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Maps `[T, H, W]` as they are; T maps `[h, w]` one after the other, with their shapes."""
    if isinstance(maps, np.ndarray):
        return {"anomaly_map": maps}
    return {"anomaly_map": _flat(maps), "map_shape": np.array([one.shape for one in maps])}


def pack_masks(masks: np.ndarray | Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """As `pack_maps`, eight pixels a byte; the shape is always there."""
    if isinstance(masks, np.ndarray):
        return {"mask": np.packbits(masks), "mask_shape": np.array(masks.shape)}
    shapes = np.array([one.shape for one in masks])
    return {"mask": np.packbits(_flat(masks)), "mask_shape": shapes}


def unpack_maps(
    predictions: Mapping[str, np.ndarray],
) -> np.ndarray | list[np.ndarray] | None:
    """The maps: `[T, H, W]`, or T maps `[h, w]` of images looked at in tiles; None without any."""
    maps = predictions.get("anomaly_map")  # once: an open npz file reads it at every access
    if maps is None or "map_shape" not in predictions:
        return maps
    return _apart(maps, predictions["map_shape"])


def unpack_masks(
    predictions: Mapping[str, np.ndarray],
) -> np.ndarray | list[np.ndarray] | None:
    """The masks, bool, as `unpack_maps`."""
    if "mask" not in predictions:
        return None
    shapes = predictions["mask_shape"]
    count = int(np.prod(shapes, axis=-1).sum())
    masks = np.unpackbits(predictions["mask"], count=count).astype(bool)
    return masks.reshape(shapes) if shapes.ndim == 1 else _apart(masks, shapes)


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays])


def _apart(flat: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
    parts = np.split(flat, np.cumsum(np.prod(shapes, axis=1))[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]
