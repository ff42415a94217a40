"""The interface of all datasets: a category is two lists of samples."""

import abc
import dataclasses
import os
from pathlib import Path

import numpy as np

from imvad_jax.data.listing import NotUsed, list_folder
from imvad_jax.errors import UserError, readable

TRAIN_SHARE = 0.8


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image on disk."""

    path: str  # of the image file
    # The path relative to the data directory, with forward slashes, as text: the key in results.
    name: str
    defect: str = "good"  # kind of defect, "good" for none
    mask_paths: tuple[str, ...] = ()  # its masks, united; none: no mask exists

    @property
    def label(self) -> int:
        """1 for defective, 0 for good: from the folder or list, in KolektorSDD from the mask."""
        return int(self.defect != "good")


@dataclasses.dataclass(frozen=True, repr=False)
class Category:
    """The files of one category. `has_masks`: every defective test image has one.

    `not_used` are the other files that lie where images and masks are looked for.
    """

    dataset: str
    name: str
    train: tuple[Sample, ...]  # good images only
    test: tuple[Sample, ...]  # good and defective, sorted by kind and name; may be empty
    has_masks: bool
    not_used: tuple[NotUsed, ...] = ()

    def __repr__(self) -> str:
        defective = sum(sample.label for sample in self.test)
        return (
            f"Category({self.dataset} {self.name}, {len(self.train)} to fit on, "
            f"{len(self.test)} to test ({defective} defective), "
            f"{'masks' if self.has_masks else 'no masks'})"
        )


class Layout(abc.ABC):
    """Where one dataset keeps its images and masks."""

    name: str
    published: bool = True  # its authors say what a mask's values mean: non-zero is defect
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


def image_files(directory: Path, not_used: list[NotUsed] | None = None) -> list[Path]:
    """Image files directly inside `directory`, sorted by name; none if it does not exist.

    The other files are added to `not_used`.
    """
    found = list_folder(directory)
    if not_used is not None:
        not_used += found.not_used
    return [Path(path) for path in found.images]


def name_of(path: str | Path, root: Path) -> str:
    """The name of a file in results: relative to `root`, with forward slashes."""
    return readable(os.path.relpath(path, root)).replace(os.sep, "/")


def subdirectories(directory: Path) -> list[str]:
    """Names of the directories directly inside `directory`, sorted; none if it does not exist."""
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def image_mask_pairs(
    directory: Path, ending: str, not_used: list[NotUsed] | None = None
) -> list[tuple[Path, Path]]:
    """Images in `directory` with the masks that lie beside them, named `<image's stem><ending>`.

    Upper and lower case of the ending count alike; other files are added to `not_used`.

    Raises:
      UserError: an image without a mask or a mask without an image.
    """
    files = image_files(directory, not_used)
    masks = {p.name[: -len(ending)]: p for p in files if p.name.lower().endswith(ending)}
    images = [path for path in files if path not in masks.values()]
    for image in images:
        if image.stem not in masks:
            expected = readable(image.with_name(image.stem + ending))
            raise UserError(f"{readable(image)}: its mask is missing; expected {expected}")
    for stem in sorted(masks.keys() - {image.stem for image in images}):
        raise UserError(
            f"{readable(masks[stem])}: a mask without an image; expected "
            f"{readable(directory / stem)}.*"
        )
    return [(image, masks[image.stem]) for image in images]


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
