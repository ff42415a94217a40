"""Reads the files of a category: masks, and images that may be unreadable."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from imvad_jax.data import layouts
from imvad_jax.data.batches import Numbers
from imvad_jax.data.decode import Geometry, Reader
from imvad_jax.data.listing import UNREADABLE, NotUsed
from imvad_jax.data.mask_arrays import Regions, count_regions, shrink, shrink_whole
from imvad_jax.data.masks import NON_ZERO, MaskRule, read_masks, survey
from imvad_jax.data.reading import Reading
from imvad_jax.data.stream import decode_files
from imvad_jax.data.tiles import Tiling
from imvad_jax.errors import UserError, listed, readable


def bad_images(
    paths: Sequence[str], geometry: Geometry, tiling: Tiling | None, reader: Reader
) -> dict[int, str]:
    """Why images cannot be read, by number: all are decoded once."""
    decoded = decode_files(paths, geometry, 1, 8, tiling=tiling, reader=reader)
    return {
        file.number: f"{readable(paths[file.number])}: {file.error}"
        for file in decoded
        if file.error
    }


def drop_images(
    files: layouts.Category, train: Mapping[int, str], test: Mapping[int, str]
) -> layouts.Category:
    """The category without the images of these numbers, which are named as not used.

    Raises:
      UserError: no good image would be left.
    """
    kept, not_used = [], list(files.not_used)
    for samples, bad in ((files.train, train), (files.test, test)):
        kept.append(tuple(s for number, s in enumerate(samples) if number not in bad))
        for number, text in sorted(bad.items()):
            path = samples[number].path
            detail = text.removeprefix(f"{readable(path)}: ")
            not_used.append(NotUsed(path, UNREADABLE, detail, True))
    if not kept[0]:
        raise UserError(f"{files.name}: none of {len(files.train)} good images can be read")
    return dataclasses.replace(files, train=kept[0], test=kept[1], not_used=tuple(not_used))


@dataclasses.dataclass(frozen=True)
class Masks:
    """The masks of the test images of a category.

    Attributes:
      arrays: bool `[T, H, W]`, or a list of `[h, w]` where sizes differ; None without masks.
      rule: How the files were read.
      count: Number of mask files.
      per_image: Regions of each test image; None without masks.
      notes: For the user.
      errors: About files that cannot be used.
    """

    arrays: np.ndarray | list[np.ndarray] | None
    rule: MaskRule = NON_ZERO
    count: int = 0
    per_image: tuple[Regions, ...] | None = None
    notes: tuple[str, ...] = ()
    errors: list[str] = dataclasses.field(default_factory=list)

    @property
    def regions(self) -> int | None:
        """Defect regions at the masks' own size."""
        return None if self.per_image is None else sum(r.total for r in self.per_image)

    @property
    def vanished(self) -> int | None:
        """Those of them of which no pixel is left."""
        return None if self.per_image is None else sum(r.vanished for r in self.per_image)

    def take(self, numbers: Numbers) -> "Masks":
        """Those of the test images of these numbers."""
        if self.arrays is None or self.per_image is None:
            return self
        return dataclasses.replace(
            self,
            arrays=self.arrays[np.asarray(numbers, int)],
            per_image=tuple(self.per_image[number] for number in numbers),
        )


def gather_masks(
    files: layouts.Category,
    layout: layouts.Layout,
    reading: Reading,
    geometry: Geometry,
    *,
    shapes: Sequence[tuple[int, int]] | None = None,
    skip: Mapping[int, str] | None = None,
) -> Masks:
    """Reads and shrinks the masks of all test images.

    Args:
      shapes: Rows and columns of the mask of each image; None: as `geometry` has them.
      skip: Numbers of images that cannot be read; their masks stay empty.
    """
    if not files.has_masks:
        return Masks(None)
    pairs = [(mask, s.path) for s in files.test for mask in s.mask_paths]
    most = reading.max_megapixels
    rule, notes = survey(
        pairs, layout.published, reading.mask_values, reading.mask_orientation, most
    )
    arrays, regions, errors, over_half, remarks, count = [], [], [], [], [], 0
    for number, sample in enumerate(files.test):
        size = (geometry.size, geometry.size)
        if shapes is not None:
            rows, columns = shapes[number]
            size = (columns, rows)
        arrays.append(np.zeros((geometry.crop,) * 2 if shapes is None else shapes[number], bool))
        regions.append(Regions(0, 0))
        if not sample.mask_paths or number in (skip or {}):
            continue
        count += len(sample.mask_paths)
        try:
            mask = read_masks(sample.mask_paths, sample.path, rule, most, remarks)
        except UserError as error:
            errors.append(error.text)
            continue
        if shapes is None:
            arrays[-1] = shrink(mask, geometry)
        else:
            arrays[-1] = shrink_whole(mask, size, geometry.mask_rule)
        offset = geometry.offset if shapes is None else 0
        regions[-1] = count_regions(mask, arrays[-1], size, offset)
        if mask.mean() > 0.5:
            over_half.append(sample.name)
    if over_half:
        notes.append(
            f"{len(over_half)} masks mark more than half of their picture ({listed(over_half, 3)})"
        )
    if remarks:
        notes.append(listed(remarks, 3))
    return Masks(
        np.array(arrays) if shapes is None else arrays,
        rule, count, tuple(regions), tuple(notes), errors,
    )  # fmt: skip
