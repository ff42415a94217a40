"""The Python API: make a method by name, load images, fit, score, predict, save, load.

    import imvad_jax

    print(imvad_jax.methods())  # all methods by name, with their presets
    model = imvad_jax.make("patchcore", preset="cpu", weights="hub:timm/resnet18.tv_in1k@main")
    model = model.fit("good_parts")
    for part in model.predict("new_parts"):
        print(part.name, part.verdict, part.normalized_score)
    model.save("detector")
    model = imvad_jax.load("detector")

The names below are those of the package, `imvad_jax.make`, and of its module `imvad_jax.api`, which
holds them; importing the package takes milliseconds, as each is imported when it is first used.
`imvad_jax.metrics` has the five metrics as functions of arrays, `imvad_jax.metrics.compute` all of
them in one call. `imvad_jax.methods` is also the module of the methods: `methods.get("padim")`.

`make` and `load` return a `Model`, whose methods do the rest. `load_data` opens a dataset of any
layout, to fit and evaluate. It needs TensorFlow the first time that it decodes images, and so does
a fit on a folder. All errors for bad input are `UserError`, which is a `ValueError`.
"""

import os
from pathlib import Path

import numpy as np

from imvad_jax.data import layouts
from imvad_jax.data.batches import Images
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.reading import Reading, parse_full_scale
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError
from imvad_jax.model import ImagePrediction, Model, inputs, load, make
from imvad_jax.progress import silent_progress, tqdm_progress, track, untracked
from imvad_jax.training.score import Scores

# In the order of docs/api.md.
__all__ = ["make", "load", "Model", "ImagePrediction", "load_data", "fit", "score", "save"]


def load_data(
    data_dir: str,
    model: Model,
    dataset: str = "folder",
    category: str | None = None,
    cache_dir: str | None = None,
    *,
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
    """Loads the images of one category at the input size of `model`.

    The result has `train` (good images) and `test`, the arguments of `fit` and `score`, `labels`
    (int `[T]`, 1 for defective), `masks` (bool `[T, S, S]`, or None), `train_names`, `test_names`
    and `test_defects`. `train.images` and `test.images` are arrays, uint8 `[N, S, S, C]`, unless
    the category is so large that it is streamed from its files. With `tile` there are no such
    arrays, and `masks` is a list of arrays `[h, w]` with the sizes of the maps from `score`.

    Args:
      data_dir: Directory of the dataset; for "folder", it may hold images of good parts only.
      model: From `make` or `load`; it determines the size.
      dataset: Name of the layout: "folder", "mvtec_ad", "visa" and so on.
      category: Name of the category; may be omitted if the directory holds only one.
      cache_dir: Directory that caches decoded images; None disables the cache.
      progress: Whether to show a progress bar.
      tile: Side of the tiles in pixels; 0 means the tiles of a fitted `model`, otherwise none.
      overlap: Overlap of neighbouring tiles in pixels; None means an eighth of `tile`.
      full_scale: Pixel value that means white in files deeper than 8 bits; "auto" takes that of a
        fitted `model`, otherwise it is found from the good images.
      max_megapixels, mask_values, mask_orientation, recursive, on_bad_image: As the flags of
        imvad run of these names (docs/flags.md).

    Raises:
      UserError: There are no images, a file cannot be read (the message names it), an image is
        smaller than a tile, or the model crops and `tile` is set.
    """
    scale = parse_full_scale(str(full_scale))
    if scale is None and model.fitted:
        scale = model.reader.full_scale
    reading = Reading(scale, max_megapixels, mask_values, mask_orientation, recursive, on_bad_image)
    data_dir = os.path.expanduser(data_dir)
    cache_dir = cache_dir and os.path.expanduser(cache_dir)
    found = layouts.select_categories(
        layouts.get(dataset), data_dir, [category] if category else [], recursive
    )
    if len(found) > 1:
        raise UserError(f"category: {data_dir} holds {', '.join(found)}; name one of them")
    tiling = Tiling.of(tile, overlap) if tile else model.tiling
    return open_category(
        dataset, data_dir, found[0], model.geometry, cache_dir,
        progress=track if progress else untracked, tiling=tiling,
        keep_tiles=not model.fitted and "gradient" in model.detector.phases, reading=reading,
    )  # fmt: skip


def fit(model: Model, images: np.ndarray | Images, seed: int = 0, progress: bool = False) -> Model:
    """Returns the model fitted on all of these good images, without a threshold.

    `model` itself does not change. `Model.fit` also holds out images to set a threshold.

    Args:
      model: From `make`.
      images: uint8 `[N, S, S, C]` with C 1 or 3, or `train` of `load_data`.
      seed: Seed of the random numbers of the fit.
      progress: Whether to show a progress bar.

    Raises:
      UserError: There are no images, they have another size or type, or the training diverged.
    """
    shown = tqdm_progress if progress else silent_progress
    tiling = getattr(images, "tiling", None)
    images = inputs.checked(images, model.geometry, tiling)
    return model.fit_images(images, seed=seed, progress=shown)


def score(
    model: Model, images: np.ndarray | Images, batch_size: int = 0, progress: bool = False
) -> Scores:
    """Same as `Model.score`."""
    return model.score(images, batch_size, progress)


def save(model: Model, directory: str | Path) -> None:
    """Same as `Model.save`."""
    model.save(directory)
