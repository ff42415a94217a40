"""The Python API: load images, make a method by name, fit, score, save, load.

    from imvad_jax import api

    model = api.make("raw_color")
    data = api.load_data("MY_PARTS", model)
    model = api.fit(model, data.train)
    scores, maps = api.score(model, data.test)

Images are uint8 arrays `[N, S, S, 3]` (RGB) or `[N, S, S, 1]` (grey), S the side in pixels that the
method sees (`model.input_size`), or what `load_data` gives. TensorFlow is needed by `load_data`
alone, the first time that it decodes a dataset. All errors for bad input are `UserError`.
"""

import dataclasses
import os
from pathlib import Path

import numpy as np

from imvad_jax import __version__, backbones, methods
from imvad_jax.backbones.weights import load_weights
from imvad_jax.data import layouts, pictures
from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.reading import Reading, parse_full_scale
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.methods.base import config_from_strings
from imvad_jax.owned import foreign_names
from imvad_jax.reporting.progress import tqdm_progress, track, untracked
from imvad_jax.training import checkpoint, record
from imvad_jax.training import fit as fitting
from imvad_jax.training import score as scoring
from imvad_jax.training.job import silent_progress
from imvad_jax.training.parallel import choose_devices


@dataclasses.dataclass(frozen=True)
class Model:
    """A method and its variables. `make` and `load` give one, `fit` gives a fitted one.

    `method` is its name in the registry, `detector` the linen module, `variables` its pytree of
    arrays. `weights` are the `source` and `sha256` of the pretrained weights, None without any.
    `tiling` has the `tile` and `overlap` that it was fitted with, None for whole images. `reader`
    says how the files were read that it was fitted on.
    """

    method: str
    detector: methods.Detector
    variables: dict
    weights: dict | None = None
    fitted: bool = False
    tiling: Tiling | None = None
    reader: Reader = EVERY_DEPTH

    @property
    def config(self) -> methods.DetectorConfig:
        """The settings of the method."""
        return self.detector.config

    @property
    def input_size(self) -> int:
        """Height and width in pixels of the images that the method sees."""
        return self.config.input_size


def make(method: str, weights: str | None = None, seed: int = 0, **fields) -> Model:
    """A method by its name, unfitted, with its pretrained weights loaded.

    Args:
      method: A name of the registry: "padim", "patchcore" and so on, or "package.module:Class".
      weights: Where pretrained weights come from, as the flag `--weights`: a file,
        "hub:OWNER/NAME@REVISION", "package:NAME", or "random" for tests. Methods without a
        backbone need none.
      seed: Seeds the random draws of the method and the weights "random".
      fields: Fields of the method's configuration, over its defaults: `image_size=128`. The preset
        `official` of some methods has more: `resize`, `mask_rule` and others (docs/flags.md).

    Raises:
      UserError: an unknown method, field or backbone, a value of the wrong type, or weights that
        cannot be read.
    """
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in fields.items()
    }
    config = config_from_strings(methods.get(method).config(), texts)
    detector = methods.make(method, config)
    backbone = origin = None
    if detector.outputs:
        spec = backbones.get(config.backbone)
        loaded = load_weights(spec, weights, detector.outputs, seed)
        backbone, origin = loaded.variables, {"source": loaded.source, "sha256": loaded.sha256}
    return Model(method, detector, fitting.init_variables(detector, backbone, seed), origin)


def load_data(
    data_dir: str,
    model: Model,
    dataset: str = "folder",
    category: str | None = None,
    cache_dir: str | None = None,
    progress: bool = False,
    tile: int = 0,
    overlap: int | None = None,
    full_scale: str | float = "auto",
    max_megapixels: float = Reading.max_megapixels,
    mask_values: str = "auto",
    mask_orientation: str = "auto",
    recursive: bool = False,
    on_bad_image: str = "error",
) -> CategoryData:
    """The images of one category at the size that `model` sees.

    The result has `train` (good images) and `test`, which `fit` and `score` take, `labels` (int
    `[T]`, 1 for defective), `masks` (bool `[T, S, S]`, or None), `train_names`, `test_names` and
    `test_defects`. In `train.images` and `test.images` lie the arrays, uint8 `[N, S, S, C]`, unless
    the category is so large that it is streamed from its files. With `tile` there are no such
    arrays, and `masks` is a list of arrays `[h, w]`, of the sizes of the maps that `score` gives.

    Args:
      data_dir: The directory of the dataset; for "folder" also one with images of good parts alone.
      model: From `make` or `load`; it says the size.
      dataset: Name of the layout: "folder", "mvtec_ad", "visa" and so on.
      category: May be left out where the directory holds one only.
      cache_dir: Where decoded images are kept for the next time; None keeps none.
      progress: Shows a bar.
      tile: Side in pixels of the tiles that images are looked at in; 0: as `model` was fitted,
        whole if it was not.
      overlap: Pixels by which neighbouring tiles overlap; None: an eighth of `tile`.
      full_scale: The value that is white in files deeper than 8 bits; "auto": as `model` was
        fitted, else found from the good images.
      max_megapixels, mask_values, mask_orientation, recursive, on_bad_image: As the flags of
        experiments.run of these names (docs/flags.md).

    Raises:
      UserError: nothing to be found there, or a file that cannot be read; it is named. Images
        smaller than a tile, or tiles for a model that crops.
    """
    scale = parse_full_scale(str(full_scale))
    if scale is None and model.fitted:
        scale = model.reader.full_scale
    reading = Reading(
        scale, max_megapixels, mask_values, mask_orientation, recursive, on_bad_image
    )
    data_dir = os.path.expanduser(data_dir)
    cache_dir = cache_dir and os.path.expanduser(cache_dir)
    found = layouts.select_categories(
        layouts.get(dataset), data_dir, [category] if category else [], recursive
    )
    if len(found) > 1:
        raise UserError(f"category: {data_dir} holds {', '.join(found)}; name one of them")
    tiling = Tiling.of(tile, overlap) if tile else model.tiling
    return open_category(
        dataset, data_dir, found[0], _geometry(model), cache_dir,
        progress=track if progress else untracked, tiling=tiling,
        keep_tiles=not model.fitted and "gradient" in model.detector.phases, reading=reading,
    )  # fmt: skip


def fit(model: Model, images: np.ndarray | Images, seed: int = 0, progress: bool = False) -> Model:
    """The model fitted on good images; `model` itself stays as it was.

    Args:
      model: From `make`.
      images: uint8 `[N, S, S, C]`, C 1 or 3, or `train` of `load_data`.
      seed: Seeds what is drawn while it is fitted.
      progress: Shows a bar.

    Raises:
      UserError: no images, of another size or type, or the training diverged.
    """
    if model.fitted:
        raise UserError("model: it is fitted already; make a new one to fit anew")
    images = _images(model, images)
    extra = {
        name: {"images": pictures.read_pictures(directory, model.input_size)}
        for name, directory in model.config.picture_dirs.items()
        if directory
    }
    variables = fitting.fit(
        model.detector, model.variables | extra, images, choose_devices(0), seed,
        progress=tqdm_progress if progress else silent_progress,
    )  # fmt: skip
    tiling = images.tiling if isinstance(images, TiledImages) else None
    return dataclasses.replace(
        model, variables=variables, fitted=True, tiling=tiling, reader=images.reader
    )


def score(
    model: Model, images: np.ndarray | Images, batch_size: int = 0, progress: bool = False
) -> scoring.Scores:
    """Scores and anomaly maps of images; larger is more anomalous. Unpacks as `scores, maps`.

    The scores are the method's own, float32 `[N]`; the maps float32 `[N, S, S]`, or None for a
    method that gives none. Of images in tiles there is one score and one map each, that of its
    highest tile and the map blended from theirs; the maps are then a list of arrays `[h, w]`, as
    fine as those of the tiles but at most 2048 values long.

    Args:
      model: From `fit` or `load`.
      images: uint8 `[N, S, S, C]`, C 1 or 3, or `test` of `load_data`.
      batch_size: Images a batch; 0: as the configuration says.
      progress: Shows a bar.

    Raises:
      UserError: the model is not fitted, or images of another size or type, or on other tiles.
    """
    _require_fitted(model)
    return scoring.score(
        model.detector, model.variables, _images(model, images), choose_devices(0),
        batch_size or None, progress=tqdm_progress if progress else silent_progress,
    )  # fmt: skip


def save(model: Model, directory: str | Path) -> None:
    """Writes a fitted model to a directory, which is made; one saved there before is replaced.

    The earlier model can be loaded until the new one is complete, whatever ends the process or
    fills the disk. Other files in the directory stay.

    Args:
      model: From `fit` or `load`.
      directory: Holds afterwards `config.json` and the folder that it names: `checkpoint`, or
        `checkpoint-2` and so on where an earlier one was replaced. `experiments.predict` takes it
        as its `--workdir` (with `--good`, as there is no threshold in it).

    Raises:
      UserError: the model is not fitted, the directory holds something else (a run of
        `experiments.run` too), or it cannot be written.
    """
    _require_fitted(model)
    directory = Path(directory).expanduser()
    kept = {
        "method": model.method,
        "title": methods.get(model.method).title,
        "config": dataclasses.asdict(model.config),
        "weights": model.weights,
        "notes": list(model.config.notes),
        "tile": model.tiling.tile if model.tiling else 0,
        "overlap": model.tiling.overlap if model.tiling else 0,
        "versions": {"imvad_jax": __version__},
        "dataset": None,
        "category": None,
        "saved_by": "imvad_jax.api",
    }
    if model.reader != EVERY_DEPTH:
        kept["full_scale"] = model.reader.full_scale
    stored = record.read_record(directory)
    try:
        others = sorted(foreign_names(directory)) if directory.exists() else []
        if others and (stored or {}).get("saved_by") != kept["saved_by"]:
            raise UserError(
                f"{directory}: holds something else ({others[0]}); expected a new or empty "
                "directory, or one that api.save wrote"
            )
        checkpoint.save_model(directory, kept, model.variables)
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror or error})") from None


def load(directory: str | Path) -> Model:
    """The fitted model that `save` or `experiments.run` (its `--workdir`) wrote.

    Args:
      directory: What was given to `save`, or the directory of a finished run of one category.

    Raises:
      UserError: no fitted model there, or a damaged one.
    """
    directory = Path(directory).expanduser()
    stored = record.read_record(directory)
    if stored is None:
        raise UserError(f"{directory}: no model there; expected what api.save or a run wrote")
    config = record.config_of(methods.with_newer_fields(stored))
    detector = methods.make(stored["method"], config)
    variables = checkpoint.load_variables(directory)
    return Model(
        stored["method"], detector, variables, stored.get("weights"), fitted=True,
        tiling=Tiling.of_record(stored), reader=Reader.of_record(stored),
    )  # fmt: skip


def _geometry(model: Model) -> Geometry:
    return Geometry.of(model.config)


def _require_fitted(model: Model) -> None:
    if not model.fitted:
        raise UserError("model: it is not fitted yet; call api.fit first")


def _images(model: Model, images) -> Images | TiledImages:
    geometry, size = _geometry(model), model.input_size
    if isinstance(images, FileImages | TiledImages):
        if images.geometry != geometry:
            raise UserError(f"images: loaded for another model ({images.geometry}, not {geometry})")
        tiling = images.tiling if isinstance(images, TiledImages) else None
        if model.fitted and tiling != model.tiling:
            raise UserError(f"images: in other tiles ({tiling}) than the model ({model.tiling})")
        return images
    reader = getattr(images, "reader", EVERY_DEPTH)
    images = images.images if isinstance(images, ArrayImages) else np.asarray(images)
    if images.ndim != 4 or images.shape[1:3] != (size, size) or images.shape[3] not in (1, 3):
        raise UserError(
            f"images: found shape {list(images.shape)}; expected [N, {size}, {size}, C], C 3 (RGB) "
            "or 1 (grey)"
        )
    if images.dtype != np.uint8:
        raise UserError(f"images: found {images.dtype}; expected uint8 from 0 to 255")
    return ArrayImages(images, reader)
