"""The one type that programs and Python work with: what a detector does, on what is known of it."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from imvad_jax.audit.ranges import Ranges
from imvad_jax.data.batches import Images
from imvad_jax.data.holdout import draw_held_out, number_of_folds
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.methods.base import Progress
from imvad_jax.model import inputs, store
from imvad_jax.model.measure import measure, measure_by_folds, thresholds
from imvad_jax.model.prediction import ImagePrediction, Stream
from imvad_jax.model.state import State
from imvad_jax.progress import silent_progress, tqdm_progress
from imvad_jax.training import fit as fitting
from imvad_jax.training.score import Scores

HOLDOUT = 0.2  # share of the good images that the threshold is found from
QUANTILE = 0.95


class Model(State):
    """A detector with its variables and metadata. It is immutable.

    `make` and `load` return a model; `fit` and `calibrate` return a new one.

    Attributes:
      method: Name of the method.
      detector: The linen module.
      variables: Its pytree of arrays, on the host.
      preset: Name of the configuration that it started from; `overrides` holds the changed fields,
        as text.
      seed: Seed of all random draws.
      weights: `source` and `sha256` of the pretrained weights; None without a backbone.
      notes: Caveats about its results, one sentence each.
      fitted: Whether it is fitted and can score.
      fitted_on: Number of images, or of tiled images, that it was fitted on; 0 if it is not fitted
        or this is not on record.
      tiling: The `tile` and `overlap` that it was fitted with; None for whole images.
      reader: How image files are read, for the fit and for new images.
      calibration: Its thresholds. If None, it returns scores but no verdicts.
      ranges: Lowest, median and highest value of the simple statistics (mean grey, sharpness and so
        on) of its good images, by which `predict` recognises images taken under other conditions;
        None if unknown.
      record: The record of the run that fitted it, or the record saved with it.
      parallel: Devices that it uses; None means all devices of this machine.
    """

    def fit(
        self,
        images,
        *,
        holdout: float | None = None,
        quantile: float = QUANTILE,
        tile: int = 0,
        overlap: int | None = None,
        progress: bool = False,
    ) -> "Model":
        """Returns the model fitted on good images, with a threshold set from held-out ones.

        Args:
          images: A folder of good images (of a labelled dataset, its good training images are
            used), a list of paths, PIL images or arrays of any size, a uint8 array `[N, S, S, C]`
            of the input size (C 1 or 3), or `train` of `load_data`.
          holdout: Fraction of the images that is held out to set the threshold. 0 fits on all
            images; there is no threshold until `calibrate`. None means 0.2; if fewer than 20 images
            would be held out, a method without training is fitted on all images, and
            `calibrate_by_folds` sets the threshold.
          quantile: The threshold is this quantile of the held-out scores: 1 minus the fraction of
            good parts that may be flagged.
          tile: For a folder or paths: side of the tiles in pixels; 0 means whole images.
          overlap: Overlap of neighbouring tiles in pixels; None means an eighth of `tile`.
          progress: Whether to show progress bars.

        Raises:
          UserError: The model is already fitted; there are no images, or too few to hold any out;
            an image cannot be read or has another size or type; or the training diverged.
        """
        self._require_unfitted()
        tiling = Tiling.of(tile, overlap) if tile else None
        good = inputs.good_images(images, self.geometry, self.reader, tiling, progress)
        shown = tqdm_progress if progress else silent_progress
        folds = 0
        if holdout is None:
            holdout = HOLDOUT
            folds = number_of_folds(self.detector.phases, len(good.names), holdout)
        if folds:
            return self.fit_images(good.images, progress=shown).calibrate_by_folds(
                good.images, folds, quantile=quantile, names=good.names, progress=shown
            )
        kept, out = draw_held_out(len(good.names), holdout, self.seed)
        fitted = self.fit_images(
            good.images.take(kept) if len(out) else good.images, progress=shown
        )
        if not len(out):
            return fitted
        names = [good.names[number] for number in out]
        return fitted.calibrate(
            good.images.take(out), quantile=quantile, names=names, progress=progress
        )

    def fit_images(
        self, images: Images | TiledImages, *, seed: int | None = None, **options
    ) -> "Model":
        """Returns the model fitted on all of these images, without a threshold.

        Args:
          images: Images of the input size.
          seed: Seed of the fit; None means the seed of the model.
          options: Further fields of `training.job.Job`: `progress`, `timings`, `checkpoints`,
            `on_epoch`, `limit`, `training_loop`.

        Raises:
          UserError: As for `fit`.
        """
        self._require_unfitted()
        seed = self.seed if seed is None else seed
        backbone = self.variables.get("backbone")
        pictures = {k: v for k, v in self.variables.items() if k in self.config.picture_dirs}
        if not pictures:
            pictures = inputs.read_picture_dirs(self.config)[0]
        variables = fitting.init_variables(self.detector, backbone, self.seed) | pictures
        ranges = self.ranges or Ranges.of_images(images)
        variables = fitting.fit(self.detector, variables, images, self.devices, seed, **options)
        tiled = isinstance(images, TiledImages)
        return dataclasses.replace(
            self, variables=variables, fitted=True,
            fitted_on=len(images.paths) if tiled else len(images),
            tiling=images.tiling if tiled else None,
            reader=getattr(images, "reader", self.reader), ranges=ranges,
        )  # fmt: skip

    def calibrate(
        self,
        images,
        *,
        quantile: float = QUANTILE,
        names: Sequence[str] | None = None,
        batch_size: int = 0,
        progress: bool | Progress = False,
    ) -> "Model":
        """Returns the model with thresholds set from good images that it was not fitted on.

        Args:
          images: As for `fit`; all images of a folder are taken to be good.
          quantile: The threshold is this quantile of their scores, from 0.5 to 1.
          names: Names of the images for the record; None means their paths or indices.
          batch_size: Images per batch; 0 uses the batch size of the configuration.
          progress: Whether to show a progress bar, or a `Progress` that shows it.

        Raises:
          UserError: The model is not fitted, there are no images, an image cannot be read, or the
            quantile is out of range.
        """
        shown = tqdm_progress if progress is True else progress or silent_progress
        if isinstance(images, Iterator):
            images = list(images)  # some may be looked at twice
        found = measure(self, images, batch_size, shown, names)
        calibration = thresholds(self, images, found, quantile, batch_size=batch_size)
        return dataclasses.replace(self, calibration=calibration)

    def calibrate_by_folds(
        self,
        images: Images | TiledImages,
        folds: int,
        *,
        quantile: float = QUANTILE,
        names: Sequence[str],
        progress: bool | Progress = False,
    ) -> "Model":
        """Returns the model with thresholds set by cross-validation on its own training images.

        The images of each fold are scored by a detector fitted on all other folds. This is meant
        for methods without training, because it needs one fit per fold, and for few images. The
        detectors of the folds saw fewer images than this one and tend to give higher scores to
        good parts.

        Args:
          images: All images that the model was fitted on, decoded.
          folds: Number of folds, at least 2; see `data.holdout.number_of_folds`.
          quantile: As for `calibrate`.
          names: Names of the images for the record.
          progress: Whether to show a progress bar, or a `Progress` that shows it.

        Raises:
          UserError: The model is not fitted, or an image cannot be read.
        """
        self._require_fitted()
        backbone = {k: v for k, v in self.variables.items() if k == "backbone"}
        unfitted = dataclasses.replace(
            self, variables=backbone, fitted=False, fitted_on=0, calibration=None
        )
        shown = tqdm_progress if progress is True else progress or silent_progress
        found = measure_by_folds(unfitted, images, names, folds, shown)
        calibration = thresholds(self, images, found, quantile, folds=folds)
        return dataclasses.replace(self, calibration=calibration)

    def score(self, images, batch_size: int = 0, progress: bool = False) -> Scores:
        """Returns raw scores and anomaly maps of images of the input size; larger is worse.

        The result unpacks as `scores, maps`: scores float32 `[N]`, and maps float32 `[N, S, S]`, or
        None for a method without maps. Tiled images have one score each, the highest of their
        tiles, and one map, blended from those of the tiles; the maps are then a list of arrays
        `[h, w]` at the resolution of the tile maps, with at most 2048 values per side.

        Args:
          images: An array `[N, S, S, C]`, or one image `[S, S, C]` or `[S, S]`, with S the input
            size, C 1, 3 or 4, uint8 or floats in [0, 1]; or `test` of `load_data`.
          batch_size: Images per batch; 0 uses the batch size of the configuration, or less for
            fewer images.
          progress: Whether to show a progress bar.

        Raises:
          UserError: The model is not fitted, or images have another size, type or tiling.
        """
        self._require_fitted()
        images = inputs.checked(images, self.geometry, self.tiling)
        if not batch_size and not isinstance(images, TiledImages):
            batch_size = inputs.small_batch(len(images), self.config.batch_size)
        shown = tqdm_progress if progress else silent_progress
        return self.scorer.score(images, batch_size, progress=shown)

    def predict(
        self, images, batch_size: int = 0, on_bad_image: str = "error"
    ) -> ImagePrediction | Iterator[ImagePrediction]:
        """Predicts score, verdict, anomaly map and regions for images of any size.

        Args:
          images: One image: a path, a PIL image, or an array `[H, W]` or `[H, W, C]` (C 1, 3 or 4;
            uint8 or floats in [0, 1]). Or several: a folder (searched recursively), a pattern such
            as "parts/*.png", an array `[N, H, W, C]`, or a list or iterator of single images.
          batch_size: Images per batch; 0 uses the batch size of the configuration, or less for
            fewer images.
          on_bad_image: What to do with an unreadable image among several: "error" raises, "skip"
            warns and leaves it out.

        Returns:
          An `ImagePrediction` for one image. For several images an iterator of them, in order,
          which keeps only a few batches in memory.

        Raises:
          UserError: The model is not fitted; there are no images; or an image cannot be read or is
            smaller than a tile (raised by the iterator when it reaches that image).
        """
        self._require_fitted()
        return self.stream(batch_size).predict(images, on_bad_image)

    def stream(self, batch_size: int = 0, picture_size: int = 0) -> Stream:
        """Returns a `Stream`, which scores images while they are decoded and can also return them.

        Args:
          batch_size: Images or tiles per batch; 0 uses the batch size of the configuration.
          picture_size: Longest side in pixels of the image returned with its score; 0 returns none.
        """
        self._require_fitted()
        return Stream(
            self.scorer, self.geometry, self.tiling, self.reader, self.calibration,
            batch_size, picture_size, self.ranges,
        )  # fmt: skip

    def save(self, directory: str | Path) -> None:
        """Writes a fitted model to a directory, replacing a model saved there before.

        The directory is created if necessary; other files in it stay. The earlier model remains
        loadable until the new one is complete, even if the process is killed. `load` reads it, and
        `imvad predict` and `imvad export` take it as their `--workdir`.

        Args:
          directory: Will contain `config.json` and the folder that it names: `checkpoint`, or
            `checkpoint-2` and so on if an earlier one was replaced.

        Raises:
          UserError: The model is not fitted, the directory holds other files (including a run of
            `imvad run`), or it cannot be written.
        """
        self._require_fitted()
        store.save(directory, self)
