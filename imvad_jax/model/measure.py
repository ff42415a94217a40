"""Measurements that set thresholds: scores of good images, identical images, effect of noise."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from imvad_jax.data.batches import Batch, Images
from imvad_jax.data.holdout import draw_folds
from imvad_jax.data.stream import PictureBatch
from imvad_jax.data.tiled import TiledImages
from imvad_jax.evaluation import Calibration, calibrate
from imvad_jax.evaluation.calibration import needs_grain
from imvad_jax.methods.base import Progress
from imvad_jax.methods.given_maps import OtherImages
from imvad_jax.model import inputs
from imvad_jax.progress import silent_progress
from imvad_jax.training import fit as fitting
from imvad_jax.training.maps import MappedImages, compute_maps, maps_bytes
from imvad_jax.training.score import MapScorer, Scorer, Scores

if TYPE_CHECKING:
    from imvad_jax.model.model import Model

GRAIN_IMAGES = 8  # number of images to which noise is added


class Measured(NamedTuple):
    """Scores and map statistics of N good images."""

    names: list[str]
    scores: np.ndarray  # [N]
    maxima: np.ndarray | None  # [N], maximum of each map; None for a method without maps
    medians: np.ndarray | None  # [N], the median of each map
    copies: int = 0  # number of images identical to another one; always 0 with tiles


class _Watched(Scorer):
    """A scorer on the same devices that passes each batch through a function before scoring."""

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
    """Scores good images with a fitted model; `images` and `names` as for `Model.calibrate`."""
    seen: list[bytes] = []

    def watch(batch):
        seen.extend(_digests(batch))
        return batch

    scorer = _Watched(model.scorer, watch)
    known, found = _scored(model, scorer, images, batch_size, progress=progress, names=names)
    # Each of several hosts sees only its own images, and tiles are often identical anyway.
    copies = len(seen) - len(set(seen)) if len(seen) == len(found) else 0
    return _measured(list(names or known), found, copies)


def measure_by_folds(
    model: "Model",
    images: Images | TiledImages,
    names: Sequence[str],
    folds: int,
    progress: Progress = silent_progress,
) -> Measured:
    """Scores good images by cross-validation: each fold by a model fitted on the others.

    Args:
      model: An unfitted model; it does not change.
      images: Decoded images of the input size.
      names: Names of the N images.
      folds: Number of folds, at least 2.
      progress: Shows the progress.
    """
    groups = list(range(len(names)))
    if not isinstance(images, TiledImages):
        groups = [digest for batch in images.batches(32) for digest in _digests(batch)]
    drawn = draw_folds(groups, folds, model.seed)
    copies = len(groups) - len(set(groups))
    if not isinstance(images, TiledImages) and maps_bytes(model.detector, len(names)):
        mapped = compute_maps(model.detector, model.variables, images, model.devices, progress)
        largest = max(map(len, drawn))
        with contextlib.suppress(OtherImages):
            found = _score_folds(
                drawn,
                lambda others, fold: _fold_by_maps(model, mapped, others, fold, largest),
                progress,
            )
            return _measured(list(names), found, copies)

    def plain(others, fold):
        fitted = model.fit_images(images.take(others))
        return _scored(fitted, fitted.scorer, images.take(fold))[1]

    return _measured(list(names), _score_folds(drawn, plain, progress), copies)


def _score_folds(
    folds: Sequence[np.ndarray], score: Callable[[np.ndarray, np.ndarray], list], progress: Progress
) -> list:
    """What `score(numbers of the others, numbers of the fold)` returns, in the order of images."""
    count = sum(map(len, folds))
    done = progress(count, "calibrate")
    found: list = [None] * count
    for fold in folds:
        for number, values in zip(fold, score(np.setdiff1d(np.arange(count), fold), fold)):
            found[number] = values
        done(len(fold))
    return found


def _fold_by_maps(
    model: "Model", mapped: MappedImages, others: np.ndarray, fold: np.ndarray, batch_size: int
) -> list:
    """Fits on the others and scores the fold, with maps that are known."""
    detector = model.detector
    variables = fitting.init_variables(detector, model.variables.get("backbone"), model.seed)
    variables = fitting.fit(detector, variables, mapped.take(others), model.devices, model.seed)
    found = MapScorer(detector, variables, model.devices).score(mapped.take(fold), batch_size)
    return _values_of(found)


def measure_grain(model: "Model", images, batch_size: int = 0) -> tuple[float, float]:
    """Returns the largest change of the score and of the map's maximum by noise of one grey level.

    This is the smallest difference that two images can have. A few images are used; each of their
    values is raised or lowered by one of 255 levels or kept, by draws with a fixed seed.
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


def thresholds(
    model: "Model",
    images,
    found: Measured,
    quantile: float,
    *,
    folds: int = 0,
    batch_size: int = 0,
) -> Calibration:
    """The thresholds from what was measured of these good images. Raises UserError."""
    grain = None
    if needs_grain(found.scores, found.copies):
        grain = measure_grain(model, images, batch_size)
    return calibrate(
        found.scores, found.names, quantile, found.maxima, found.medians,
        folds=folds, copies=found.copies, grain=grain,
    )  # fmt: skip


def _scored(
    model: "Model", scorer: Scorer, images, batch_size: int = 0, *,
    progress: Progress = silent_progress, names: Sequence[str] | None = None,
) -> tuple[list[str], list[tuple[float, float | None, float | None]]]:  # fmt: skip
    """Returns names, and score, map maximum and map median per image; no map is kept."""
    if inputs.is_decoded(images):
        images = inputs.checked(images, model.geometry, model.tiling)
        found = scorer.score(
            images, batch_size, progress=lambda total, _: progress(total, "calibrate")
        )
        known = [str(number) for number in range(len(found.image))]
        return known, _values_of(found)
    sources, known = inputs.sources(images)
    done, values = progress(len(sources), "calibrate"), []
    stream = dataclasses.replace(model.stream(batch_size), scorer=scorer, ranges=None)
    for _, score, anomaly_map in stream.run(sources, names=names or known):
        values.append(_values(score, anomaly_map))
        done(1)
    return known, values


def _values_of(found: Scores) -> list[tuple[float, float | None, float | None]]:
    maps = found.maps if found.maps is not None else [None] * len(found.image)
    return [_values(score, own_map) for score, own_map in zip(found.image, maps)]


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
    """Returns a digest of the pixels per image of a batch of whole images, without padding."""
    if isinstance(batch, Batch):
        images = batch.images[batch.valid]
    elif isinstance(batch, PictureBatch):
        images = batch.images[: len(batch.files)]
    else:
        return []
    return [hashlib.blake2b(image.tobytes()).digest() for image in images]
