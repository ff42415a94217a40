"""The one interface of all datasets: a category is two lists of samples."""

import abc
import dataclasses
import os
from pathlib import Path

import numpy as np

from imvad_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
TRAIN_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on disk."""

    path: str  # of the image file
    name: str  # the path relative to the data directory, with forward slashes: the key in results
    defect: str = "good"  # kind of defect, "good" for none
    mask_paths: tuple[str, ...] = ()  # its masks, united (non-zero is defect); none: no mask exists

    @property
    def label(self) -> int:
        """1 for defective, 0 for good: from the folder or list, in KolektorSDD from the mask."""
        return int(self.defect != "good")


@dataclasses.dataclass(frozen=True)
class Category:
    """The files of one category. `has_masks`: every defective test image has one."""

    dataset: str
    name: str
    train: tuple[Sample, ...]  # good images only
    test: tuple[Sample, ...]  # good and defective, sorted by kind and name; may be empty
    has_masks: bool


class Layout(abc.ABC):
    """Where one dataset keeps its images and masks."""

    name: str
    expected: str  # what the directory should look like, for error messages

    @abc.abstractmethod
    def categories(self, data_dir: str) -> list[str]:
        """Names of the categories found under `data_dir`, sorted."""

    @abc.abstractmethod
    def category(self, data_dir: str, name: str, seed: int = 0) -> Category:
        """The files of one category; `seed` draws a split where the dataset has none.

        Raises:
          UserError: nothing to train on, or a mask that is missing or has no image.
        """


def require_directory(data_dir: str) -> Path:
    """`data_dir` as a path. Raises UserError if it is not given or no directory."""
    if not data_dir:
        raise UserError("--data_dir is missing: name the directory that holds the dataset")
    path = Path(data_dir).expanduser()
    if path.is_file():
        raise UserError(
            f"--data_dir={data_dir}: is a file; expected the folder that holds the images"
        )
    if not path.is_dir():
        raise UserError(f"--data_dir={data_dir}: no such directory")
    return path


def image_files(directory: Path) -> list[Path]:
    """Image files directly inside `directory`, sorted by name; none if it does not exist."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith(".")
        )
    return [directory / name for name in names]


def subdirectories(directory: Path) -> list[str]:
    """Names of the directories directly inside `directory`, sorted; none if it does not exist."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def require_images(masks: Path, images: Path) -> None:
    """Checks that every mask file or directory in `masks` belongs to an image in `images`.

    They belong together by their names, with or without `_mask` after the mask's.

    Raises:
      UserError: a mask without an image; it is named.
    """
    names = {path.stem for path in image_files(images)}
    found = {path.stem: path for path in image_files(masks)}
    found |= {name: masks / name for name in subdirectories(masks)}
    for stem, path in sorted(found.items()):
        image = stem.removesuffix("_mask")
        if stem not in names and image not in names:
            raise UserError(f"{path}: a mask without an image; expected {images / image}.*")


def image_mask_pairs(directory: Path, ending: str) -> list[tuple[Path, Path]]:
    """Images in `directory` with the masks that lie beside them, named `<image's stem><ending>`.

    Raises:
      UserError: an image without a mask or a mask without an image.
    """
    files = image_files(directory)
    masks = {path for path in files if path.name.endswith(ending)}
    pairs = [(p, p.with_name(p.stem + ending)) for p in files if p not in masks]
    for image, mask in pairs:
        if mask not in masks:
            raise UserError(f"{image}: its mask is missing; expected {mask}")
    for mask in sorted(masks - {mask for _, mask in pairs}):
        image = directory / mask.name.removesuffix(ending)
        raise UserError(f"{mask}: a mask without an image; expected {image}.*")
    return pairs


def draw_split(good: list[Sample], seed: int, where: Path) -> tuple[list[Sample], list[Sample]]:
    """Four fifths of the good images, drawn by the seed, to train on, and the rest to test.

    For datasets without a split of their own; the run stores the drawn names. Both keep the order.

    Raises:
      UserError: fewer than two images, found in `where`.
    """
    if len(good) < 2:
        raise UserError(f"{where}: {len(good)} good images found; at least 2 are needed to split")
    order = np.random.default_rng(seed).permutation(len(good))
    drawn = set(order[: int(TRAIN_SHARE * len(good))].tolist())
    train = [sample for i, sample in enumerate(good) if i in drawn]
    return train, [sample for i, sample in enumerate(good) if i not in drawn]
