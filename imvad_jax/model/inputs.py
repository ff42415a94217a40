"""Inputs of a model: arrays of its input size, images of any size, paths, folders."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imvad_jax.data import layouts, pictures
from imvad_jax.data.arrays import as_uint8
from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.data.category import MAX_DECODED_BYTES, open_category
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader
from imvad_jax.data.inputs import display_names, find_images
from imvad_jax.data.pipeline import FileImages
from imvad_jax.data.reading import Reading
from imvad_jax.data.stream import Source, decode_files
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, join_errors, readable
from imvad_jax.methods import DetectorConfig
from imvad_jax.progress import silent_progress, tqdm_progress, track, untracked

_AHEAD = 32  # images decoded ahead


class GoodImages(NamedTuple):
    """Images to fit on, with their names."""

    images: Images | TiledImages
    names: list[str]


def is_path(given: Any) -> bool:
    """Whether `given` is the path of a file or folder, or a pattern."""
    return isinstance(given, str | os.PathLike)


def is_decoded(given: Any) -> bool:
    """Whether `given` is, by its type, a set of images of the input size."""
    if isinstance(given, np.ndarray):
        return given.ndim == 4
    return isinstance(given, ArrayImages | FileImages | TiledImages)


def is_one(given: Any) -> bool:
    """Whether `given` is a single image: a file, a PIL image, or an array."""
    if is_path(given):
        return not _names_many(given)
    if isinstance(given, Image.Image):
        return True
    return hasattr(given, "__array__") and np.ndim(given) < 4


def _names_many(path: str | os.PathLike) -> bool:
    found = os.path.expanduser(os.fspath(path))
    pattern = any(sign in os.fspath(path) for sign in "*?[") and not os.path.lexists(found)
    return os.path.isdir(found) or pattern


def sources(given: Any) -> tuple[list[Source], list[str]]:
    """Returns the single images that `given` stands for, and their names.

    Raises:
      UserError: There are no images.
    """
    if is_path(given):
        paths = find_images([os.fspath(given)], flag="images").images
        return paths, display_names(paths)
    given = [given] if is_one(given) else list(given)
    if not given:
        raise UserError("images: there are none")
    return [expand(item) for item in given], [name_of(item, n) for n, item in enumerate(given)]


def each(given: Any) -> tuple[Iterable[Source], int | None]:
    """Iterates over images like `sources`; also returns their number or None. Raises UserError."""
    if is_path(given) or is_one(given) or isinstance(given, Sequence):
        found = sources(given)[0]
        return found, len(found)
    if isinstance(given, np.ndarray):
        return given, len(given)
    if isinstance(given, Iterable):
        return (expand(item) for item in given), None
    raise UserError(
        f"images: found {type(given).__name__}; expected a path, a PIL image, an array, or a list "
        "or iterator of them"
    )


def expand(source: Source) -> Source:
    """Returns a path as text with `~` expanded, and other images unchanged."""
    return os.path.expanduser(os.fspath(source)) if is_path(source) else source


def name_of(source: Source, number: int) -> str:
    """Returns the name of an image in messages and results: its path, else its number."""
    return readable(source) if is_path(source) else f"picture {number}"


def small_batch(count: int | None, usual: int) -> int:
    """Returns the batch size for `count` images: a power of two, so that programs are reused.

    It is at most `usual`, and equal to it if `count` is None (unknown).
    """
    return usual if count is None else min(usual, 1 << max(count - 1, 0).bit_length())


def checked(images: Any, geometry: Geometry, tiling: Tiling | None) -> Images | TiledImages:
    """Checks and converts images of the input size.

    Args:
      images: uint8 or floats in [0, 1], `[N, S, S, C]`, `[S, S, C]` or `[S, S]`, C 1, 3 or 4; or
        images of `CategoryData`.
      geometry: Geometry of the model.
      tiling: Tiling of the model; None if it is not fitted, or uses whole images.

    Raises:
      UserError: The images have another size or type, or were loaded for another model.
    """
    if isinstance(images, FileImages | TiledImages):
        if images.geometry != geometry:
            raise UserError(f"images: loaded for another model ({images.geometry}, not {geometry})")
        found = images.tiling if isinstance(images, TiledImages) else None
        if found != tiling:
            raise UserError(f"images: their tiles ({found}) are not the model's ({tiling})")
        return images
    reader = getattr(images, "reader", EVERY_DEPTH)
    array = images.images if isinstance(images, ArrayImages) else np.asarray(images)
    size = geometry.crop
    whole = array
    if array.ndim == 2:
        whole = array[None, ..., None]
    elif array.ndim == 3:
        whole = array[None]
    if whole.ndim != 4 or whole.shape[1:3] != (size, size) or whole.shape[3] not in (1, 3, 4):
        raise UserError(
            f"images: found shape {list(array.shape)}; expected [N, {size}, {size}, C], C 3 (RGB), "
            "1 (grey) or 4 (RGBA), or one such image; predict takes pictures of any size"
        )
    try:
        found = as_uint8(whole[..., :3])
    except UserError as error:
        raise UserError(f"images: {error.text}") from None
    return ArrayImages(found, reader)


def good_images(
    given: Any, geometry: Geometry, reader: Reader, tiling: Tiling | None, progress: bool
) -> GoodImages:
    """Decodes the images of a fit; see `Model.fit`. Raises UserError."""
    if is_decoded(given):
        if isinstance(given, TiledImages):
            tiling = given.tiling
        images = checked(given, geometry, tiling)
        count = len(images.paths) if isinstance(images, TiledImages) else len(images)
        return GoodImages(images, [str(number) for number in range(count)])
    if is_path(given) and os.path.isdir(os.path.expanduser(os.fspath(given))):
        folder = os.path.expanduser(os.fspath(given))
        found = layouts.select_categories(layouts.get("folder"), folder, [], False)
        data = open_category(
            "folder", folder, found[0], geometry, None,
            progress=track if progress else untracked, tiling=tiling, keep_tiles=True,
        )  # fmt: skip
        return GoodImages(data.train, data.train_names)
    found, names = sources(given)
    files = [os.fspath(source) for source in found if is_path(source)]
    if len(files) == len(found):
        reader = Reading().reader(files)
        if tiling:
            return GoodImages(TiledImages.of_files(files, tiling, geometry, reader), names)
        if len(files) * geometry.crop**2 * 3 > MAX_DECODED_BYTES:
            return GoodImages(FileImages(files, geometry, reader), names)
    elif tiling:
        raise UserError("tile: only image files can be tiled; give their paths")
    shown = tqdm_progress if progress else silent_progress
    return GoodImages(ArrayImages(_decode(found, names, geometry, reader, shown), reader), names)


def _decode(found, names, geometry: Geometry, reader: Reader, progress) -> np.ndarray:
    done, errors = progress(len(found), "decode"), []
    array = np.empty((len(found), geometry.crop, geometry.crop, 3), np.uint8)
    for picture in decode_files(found, geometry, 0, _AHEAD, reader=reader):
        if picture.pixels is None:
            errors.append(f"{names[picture.number]}: {picture.error}")
        else:
            array[picture.number] = picture.pixels
        done(1)
    if errors:
        raise UserError(join_errors(errors))
    return array


def read_picture_dirs(config: DetectorConfig) -> tuple[dict, list[str]]:
    """Reads the additional training images (`picture_dirs`) into collections, with notes on them.

    Raises:
      UserError: A folder does not exist, or a file in it cannot be read.
    """
    collections, notes = {}, []
    for name, directory in config.picture_dirs.items():
        if directory:
            images = pictures.read_pictures(directory, config.input_size)
            collections[name] = {"images": images}
            notes.append(f"anomaly {name}: {len(images)} images of {directory}")
        else:
            notes.append(f"anomaly {name}: drawn by the program")
    return collections, notes
