"""What thresholds are found from: scores of good images, which are equal, and what noise adds."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imvad_jax.data.batches import Batch, Images
from imvad_jax.data.holdout import draw_folds
from imvad_jax.data.stream import PictureBatch
from imvad_jax.data.tiled import TiledImages
from imvad_jax.methods.base import Progress
from imvad_jax.model import inputs
from imvad_jax.progress import silent_progress
from imvad_jax.training.score import Scorer

if TYPE_CHECKING:
    from imvad_jax.model.model import Model

GRAIN_IMAGES = 8  # that noise is added to


class Measured(NamedTuple):
    """What was measured of N good images."""

    names: list[str]
    scores: np.ndarray  # [N]
    maxima: np.ndarray | None  # [N], the largest value of each map; None: an image-only method
    medians: np.ndarray | None  # [N], the median of each map
    copies: int = 0  # of the images are equal to another one; 0 where they are looked at in tiles


class _Watched(Scorer):
    """A scorer on the same devices; each batch goes through a function before it is scored."""

    def __init__(self, scorer: Scorer, change: Callable[[Any], Any]):
        vars(self).update(vars(scorer))
        self._change = change

    def batches(self, batches: Iterable):
        return super().batches(map(self._change, batches))


def measure(
    model: "Model",
    images,
    batch_size: int = 0,
    progress: Progress = silent_progress,
    names: Sequence[str] | None = None,
) -> Measured:
    """Scores good images with a fitted model; images and names as of `Model.calibrate`."""
    seen: list[bytes] = []

    def watch(batch):
        seen.extend(_digests(batch))
        return batch

    scorer = _Watched(model.scorer, watch)
    known, found = _scored(model, scorer, images, batch_size, progress=progress, names=names)
    # Of several hosts each sees its own images alone, and of tiles many are equal in any case.
    copies = len(seen) - len(set(seen)) if len(seen) == len(found) else 0
    return _measured(list(names or known), found, copies)


def measure_by_folds(
    model: "Model",
    images: Images | TiledImages,
    names: Sequence[str],
    folds: int,
    progress: Progress = silent_progress,
) -> Measured:
    """Scores good images, those of each fold by a model fitted on the others.

    Args:
      model: Not fitted; it stays as it is.
      images: Decoded, at the size that the method sees.
      names: Of the N images.
      folds: So many, at least 2.
      progress: How it is shown.
    """
    groups = list(range(len(names)))
    if not isinstance(images, TiledImages):
        groups = [digest for batch in images.batches(32) for digest in _digests(batch)]
    done = progress(len(names), "calibrate")
    found: list = [None] * len(names)
    for fold in draw_folds(groups, folds, model.seed):
        others = np.setdiff1d(np.arange(len(names)), fold)
        fitted = model.fit_images(images.take(others))
        _, scored = _scored(fitted, fitted.scorer, images.take(fold))
        for number, values in zip(fold, scored):
            found[number] = values
        done(len(fold))
    return _measured(list(names), found, len(groups) - len(set(groups)))


def measure_grain(model: "Model", images, batch_size: int = 0) -> tuple[float, float]:
    """What noise of one grey level adds to the score and to the largest value of the map, at most.

    Each value of some of the images is raised or lowered by one of 255 levels or left as it is, by
    a draw that is always the same: the smallest difference that pictures can have.
    """
    if inputs.is_decoded(images):
        count = len(images.paths) if isinstance(images, TiledImages) else len(images)
        images = inputs.checked(images, model.geometry, model.tiling)
        some = images.take(np.arange(min(count, GRAIN_IMAGES)))
    else:
        some = inputs.sources(images)[0][:GRAIN_IMAGES]
    rng = np.random.default_rng(0)

    def add_noise(batch):
        noise = rng.integers(-1, 2, batch.images.shape, np.int16)
        return batch._replace(images=np.clip(batch.images + noise, 0, 255).astype(np.uint8))

    plain = _measured([], _scored(model, model.scorer, some, batch_size)[1])
    noisy = _measured([], _scored(model, _Watched(model.scorer, add_noise), some, batch_size)[1])
    of_maps = 0.0 if plain.maxima is None else float(np.abs(noisy.maxima - plain.maxima).max())
    return float(np.abs(noisy.scores - plain.scores).max()), of_maps


def _scored(
    model: "Model", scorer: Scorer, images, batch_size: int = 0, *,
    progress: Progress = silent_progress, names: Sequence[str] | None = None,
) -> tuple[list[str], list[tuple[float, float | None, float | None]]]:  # fmt: skip
    """Names, and the score and the maximum and median of the map of each; no map is kept."""
    if inputs.is_decoded(images):
        images = inputs.checked(images, model.geometry, model.tiling)
        found = scorer.score(
            images, batch_size, progress=lambda total, _: progress(total, "calibrate")
        )
        maps = found.maps if found.maps is not None else [None] * len(found.image)
        known = [str(number) for number in range(len(found.image))]
        return known, [_values(score, own_map) for score, own_map in zip(found.image, maps)]
    sources, known = inputs.sources(images)
    done, values = progress(len(sources), "calibrate"), []
    stream = dataclasses.replace(model.stream(batch_size), scorer=scorer, ranges=None)
    for _, score, anomaly_map in stream.run(sources, names=names or known):
        values.append(_values(score, anomaly_map))
        done(1)
    return known, values


def _values(score, anomaly_map) -> tuple[float, float | None, float | None]:
    if anomaly_map is None:
        return float(score), None, None
    return float(score), float(anomaly_map.max()), float(np.median(anomaly_map))


def _measured(names: list[str], values: list, copies: int = 0) -> Measured:
    scores, maxima, medians = zip(*values) if values else ((), (None,), (None,))
    if maxima[0] is None:
        return Measured(names, np.array(scores), None, None, copies)
    return Measured(names, np.array(scores), np.array(maxima), np.array(medians), copies)


def _digests(batch) -> list[bytes]:
    """A digest of the pixels of each image of a batch of whole images, padding left out."""
    if isinstance(batch, Batch):
        images = batch.images[batch.valid]
    elif isinstance(batch, PictureBatch):
        images = batch.images[: len(batch.files)]
    else:
        return []
    return [hashlib.blake2b(image.tobytes()).digest() for image in images]
