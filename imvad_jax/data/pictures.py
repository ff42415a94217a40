"""Reads a folder of additional training images, such as textures."""

import os

import numpy as np

from imvad_jax.data.decode import Geometry, load_image
from imvad_jax.data.image_files import FORMATS_IN_WORDS
from imvad_jax.data.listing import list_folder
from imvad_jax.errors import UserError

MOST = 6000  # pictures read; the Describable Textures Dataset has 5640


def find_pictures(directory: str) -> list[str]:
    """Paths of all image files below `directory`, in folders too, sorted.

    Raises:
      UserError: there is no such directory, or no image in it.
    """
    if not os.path.isdir(directory):
        raise UserError(f"{directory}: no such directory; expected one with image files")
    paths = list_folder(directory, recursive=True).images
    if not paths:
        raise UserError(f"{directory}: no image files in it; expected {FORMATS_IN_WORDS}")
    return sorted(paths)


def read_pictures(directory: str, size: int, most: int = MOST) -> np.ndarray:
    """The pictures below `directory` resized to `size` pixels: uint8 `[T, size, size, 3]`.

    Of more than `most` files, every n-th is read, so that all folders are represented.

    Raises:
      UserError: as `find_pictures`, or a file cannot be read; it is named.
    """
    paths = find_pictures(directory)
    if len(paths) > most:
        paths = [paths[number * len(paths) // most] for number in range(most)]
    pictures = np.empty((len(paths), size, size, 3), np.uint8)
    for picture, path in zip(pictures, paths):
        picture[:] = load_image(path, Geometry(size, size))  # grey files broadcast
    return pictures
