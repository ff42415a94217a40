"""The one interface of all datasets: a category is two lists of samples."""

import abc
import dataclasses
import os
from pathlib import Path

from imvad_jax.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on disk."""

    path: str  # of the image file
    name: str  # the path relative to the data directory, with forward slashes: the key in results
    defect: str = "good"  # kind of defect, "good" for none
    mask_path: str | None = None  # its mask (non-zero is defect); None: no mask exists

    @property
    def label(self) -> int:
        """1 for defective, 0 for good. From the folder, never from the mask."""
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
