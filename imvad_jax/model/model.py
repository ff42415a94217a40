"""The one type that programs and Python work with: a detector and all that is known about it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from imvad_jax import methods
from imvad_jax.audit.ranges import Ranges
from imvad_jax.data.batches import Images
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader
from imvad_jax.data.holdout import draw_held_out, number_of_folds
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration, calibrate
from imvad_jax.evaluation.calibration import needs_grain
from imvad_jax.methods.base import Progress
from imvad_jax.model import inputs, store
from imvad_jax.model.measure import Measured, measure, measure_by_folds, measure_grain
from imvad_jax.model.prediction import ImagePrediction, Stream
from imvad_jax.progress import silent_progress, tqdm_progress
from imvad_jax.training import fit as fitting
from imvad_jax.training.parallel import Parallel, choose_devices
from imvad_jax.training.score import Scorer, Scores

HOLDOUT = 0.2  # share of the good images that the threshold is found from
QUANTILE = 0.95


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A detector, its variables, and what is known about them. No call changes it.

    `make` and `load` give one; `fit` and `calibrate` give another one with more in it.

    Attributes:
      method: Its name in the registry.
      detector: The linen module.
      variables: Its pytree of arrays, on the host.
      preset: The named configuration that it began with, and `overrides` the fields changed, as
        text.
      seed: Of every random draw.
      weights: `source` and `sha256` of the pretrained weights; None without any.
      notes: What a reader of its figures has to know, a sentence each.
      fitted: Whether it can score.
      tiling: The `tile` and `overlap` that it was fitted with; None for whole images.
      reader: How the files were read that it was fitted on, and how new ones are.
      calibration: Its thresholds; None without any: it then has scores but no verdicts.
      ranges: The lowest, median and highest mean grey, sharpness and so on of its good images, by
        which `predict` tells pictures that were taken otherwise; None: not known.
      record: What the run that fitted it put on record, or what was saved with it.
      parallel: The devices that it works on; None: all of this machine.
    """

    method: str
    detector: methods.Detector
    variables: Mapping[str, Any]
    preset: str = ""
    overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    weights: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()
    fitted: bool = False
    tiling: Tiling | None = None
    reader: Reader = EVERY_DEPTH
    calibration: Calibration | None = None
    ranges: Ranges | None = None
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parallel: Parallel | None = None

    def __repr__(self) -> str:
        parts = [self.title, self.preset and f"preset {self.preset}"]
        parts += [self.config.backbone if self.config.backbone != "none" else ""]
        parts += [f"{self.geometry.crop} px", self.tiling and f"tiles of {self.tiling.tile} px"]
        parts += ["fitted" if self.fitted else "not fitted"]
        if self.fitted:
            threshold = self.calibration and f"{self.calibration.image.threshold:.6g}"
            parts += [f"threshold {threshold}" if threshold else "no threshold"]
        return f"Model({', '.join(filter(None, parts))})"

    @property
    def title(self) -> str:
        """How tables call the method."""
        return methods.get(self.method).title

    @property
    def config(self) -> methods.DetectorConfig:
        """The settings of the method."""
        return self.detector.config

    @property
    def geometry(self) -> Geometry:
        """How a picture becomes what the method sees."""
        return Geometry.of(self.config)

    @property
    def input_size(self) -> int:
        """Height and width in pixels of what the method sees."""
        return self.config.input_size

    def with_fields(self, **changes) -> "Model":
        """The model with other values of fields of its configuration."""
        config = dataclasses.replace(self.config, **changes)
        return dataclasses.replace(self, detector=self.detector.clone(config=config))

    @functools.cached_property
    def devices(self) -> Parallel:
        """The devices that it works on."""
        return self.parallel or choose_devices(0)

    @functools.cached_property
    def scorer(self) -> Scorer:
        """The fitted detector on its devices, where it stays.

        Raises:
          UserError: the model is not fitted.
        """
        self._require_fitted()
        return Scorer(self.detector, self.variables, self.devices)

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
        """The model fitted on good images and calibrated on those of them that are held out.

        Args:
          images: A folder of good pictures (or a labelled one, of which its good training pictures
            are taken), a list of paths, PIL images or arrays of any size, an array uint8
            `[N, S, S, C]` of the input size (C 1 or 3), or `train` of `api.load_data`.
          holdout: Share of the images that is not fitted on: the threshold is found from them. 0:
            all are fitted on, and there is no threshold until `calibrate`. None: 0.2; where these
            would be fewer than 20, a method without training is fitted on all images, and the
            threshold is found by `calibrate_by_folds`.
          quantile: The threshold is this quantile of their scores: 1 minus the share of good parts
            that may be flagged.
          tile: Of a folder or of paths: side in pixels of the tiles that pictures are looked at in;
            0: whole.
          overlap: Pixels by which neighbouring tiles overlap; None: an eighth of `tile`.
          progress: Shows bars.

        Raises:
          UserError: it is fitted already; no images, or one that cannot be read or is of another
            size or type; too few to hold any out; or the training diverged.
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

    def fit_images(self, images: Images | TiledImages, *, seed: int | None = None, **options):
        """The model fitted on all of these images; what `fit` and a run do.

        Args:
          images: At the size that the method sees.
          seed: None: as the model was made.
          options: Further fields of `training.job.Job`: `progress`, `timings`, `checkpoints`,
            `on_epoch`, `limit`, `training_loop`.

        Raises:
          UserError: as `fit`.
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
        tiling = images.tiling if isinstance(images, TiledImages) else None
        reader = getattr(images, "reader", self.reader)
        return dataclasses.replace(
            self, variables=variables, fitted=True, tiling=tiling, reader=reader, ranges=ranges
        )

    def calibrate(
        self,
        images,
        *,
        quantile: float = QUANTILE,
        names: Sequence[str] | None = None,
        batch_size: int = 0,
        progress: bool | Progress = False,
    ) -> "Model":
        """The model with thresholds from good images that it was not fitted on.

        Args:
          images: As of `fit`; a folder's pictures are all taken for good ones.
          quantile: The threshold is this quantile of their scores, from 0.5 to 1.
          names: How they are called on record; None: by their paths or numbers.
          batch_size: Images a batch; 0: as the configuration says.
          progress: Shows a bar; or how it is shown, a `Progress`.

        Raises:
          UserError: the model is not fitted, there are no images, one cannot be read, or a quantile
            out of its range.
        """
        shown = tqdm_progress if progress is True else progress or silent_progress
        if isinstance(images, Iterator):
            images = list(images)  # some may be looked at twice
        found = measure(self, images, batch_size, shown, names)
        return self._with_thresholds(images, found, quantile, batch_size=batch_size)

    def calibrate_by_folds(
        self,
        images: Images | TiledImages,
        folds: int,
        *,
        quantile: float = QUANTILE,
        names: Sequence[str],
        progress: bool | Progress = False,
    ) -> "Model":
        """The model with thresholds from the very images that it was fitted on (cross-fitting).

        They are divided into `folds`; those of a fold are scored by a detector fitted on all
        others. For methods without training, which are fitted so many times more, and for few
        images. The detectors of the folds saw fewer images than this one, so that they score good
        parts rather higher.

        Args:
          images: All that the model was fitted on, decoded.
          folds: 2 or more; `data.holdout.number_of_folds` says how many.
          quantile: As of `calibrate`.
          names: How the images are called on record.
          progress: Shows a bar; or how it is shown, a `Progress`.

        Raises:
          UserError: the model is not fitted, or an image cannot be read.
        """
        self._require_fitted()
        backbone = {k: v for k, v in self.variables.items() if k == "backbone"}
        unfitted = dataclasses.replace(self, variables=backbone, fitted=False, calibration=None)
        shown = tqdm_progress if progress is True else progress or silent_progress
        found = measure_by_folds(unfitted, images, names, folds, shown)
        return self._with_thresholds(images, found, quantile, folds=folds)

    def _with_thresholds(
        self, images, found: Measured, quantile: float, *, folds: int = 0, batch_size: int = 0
    ) -> "Model":
        """The model with thresholds from what was measured of these good images."""
        grain = None
        if needs_grain(found.scores, found.copies):
            grain = measure_grain(self, images, batch_size)
        calibration = calibrate(
            found.scores, found.names, quantile, found.maxima, found.medians,
            folds=folds, copies=found.copies, grain=grain,
        )  # fmt: skip
        return dataclasses.replace(self, calibration=calibration)

    def score(self, images, batch_size: int = 0, progress: bool = False) -> Scores:
        """Scores and anomaly maps of images at the input size; larger is more anomalous.

        Unpacks as `scores, maps`. The scores are the method's own, float32 `[N]`; the maps float32
        `[N, S, S]`, or None for a method that gives none. Of images in tiles there is one score and
        one map each, that of its highest tile and the map blended from theirs; the maps are then a
        list of arrays `[h, w]`, as fine as those of the tiles but at most 2048 values long.

        Args:
          images: An array `[N, S, S, C]`, or one image `[S, S, C]` or `[S, S]`, S the input size, C
            1, 3 or 4, uint8 or floats from 0 to 1; or `test` of `api.load_data`.
          batch_size: Images a batch; 0: as the configuration says, fewer for fewer images.
          progress: Shows a bar.

        Raises:
          UserError: the model is not fitted, or images of another size or type, or on other tiles.
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
        """What the model says of pictures of any size: score, verdict, map and regions.

        Args:
          images: One picture: a path, a PIL image, or an array `[H, W]` or `[H, W, C]` (C 1, 3 or
            4; uint8 or floats from 0 to 1). Or many: a folder with all below it, a pattern such as
            "parts/*.png", an array `[N, H, W, C]`, or a list or iterator of single pictures.
          batch_size: Pictures a batch; 0: as the configuration says, fewer for fewer pictures.
          on_bad_image: Of many, what is done about one that cannot be read: "error", or "skip",
            which warns.

        Returns:
          An `ImagePrediction` of one picture. Of many an iterator of them, in order, which holds a
          few batches at a time however many there are.

        Raises:
          UserError: the model is not fitted; nothing there; or a picture that cannot be read (of
            many when its turn comes), or is smaller than a tile.
        """
        self._require_fitted()
        return self.stream(batch_size).predict(images, on_bad_image)

    def stream(self, batch_size: int = 0, picture_size: int = 0) -> Stream:
        """Scores pictures as they are decoded, for those who want to see them, too.

        Args:
          batch_size: Pictures a batch, or tiles; 0: as the configuration says.
          picture_size: Longest side in pixels of the picture that is handed out with its score; 0:
            none is.
        """
        self._require_fitted()
        return Stream(
            self.scorer, self.geometry, self.tiling, self.reader, self.calibration,
            batch_size, picture_size, self.ranges,
        )  # fmt: skip

    def save(self, directory: str | Path) -> None:
        """Writes a fitted model to a directory, which is made; one saved there before is replaced.

        The earlier model can be loaded until the new one is complete, whatever ends the process or
        fills the disk. Other files in the directory stay. `load` reads it, and
        `experiments.predict` and `experiments.export` take it as their `--workdir`.

        Args:
          directory: Holds afterwards `config.json` and the folder that it names: `checkpoint`, or
            `checkpoint-2` and so on where an earlier one was replaced.

        Raises:
          UserError: the model is not fitted, the directory holds something else (a run of
            `experiments.run` too), or it cannot be written.
        """
        self._require_fitted()
        store.save(directory, self)

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise UserError("model: it is not fitted yet; call fit first")

    def _require_unfitted(self) -> None:
        if self.fitted:
            raise UserError("model: it is fitted already; make a new one to fit anew")
