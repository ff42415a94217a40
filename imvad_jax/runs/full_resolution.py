"""Maps and masks at the original size of the images."""

import numpy as np
from PIL import Image

from imvad_jax.data.category import CategoryData
from imvad_jax.data.masks import read_masks
from imvad_jax.errors import UserError


def full_resolution(
    maps: np.ndarray | list[np.ndarray], data: CategoryData
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """T maps `[h, w]` enlarged bilinearly to their images' sizes, and the masks as they are.

    Where the images were cropped, the border that no map covers gets the lowest value of all
    maps: a defect there counts as missed.

    Raises:
      UserError: only a cache was opened, which holds no original masks.
    """
    if data.files is None:
        raise UserError(
            "--full_resolution_metrics: the original masks are not in the cache; give --data_dir"
        )
    geometry, lowest = data.geometry, min(float(small.min()) for small in maps)
    large_maps, masks = [], []
    for small, sample in zip(maps, data.files.test):
        mask = read_masks(
            sample.mask_paths, sample.path, data.found.mask_rule, data.found.reader.max_megapixels
        )
        height, width = mask.shape
        start, stop = geometry.offset, geometry.offset + geometry.crop
        rows = [round(edge * height / geometry.size) for edge in (start, stop)]
        columns = [round(edge * width / geometry.size) for edge in (start, stop)]
        size = (columns[1] - columns[0], rows[1] - rows[0])
        large = np.full(mask.shape, lowest, np.float32)
        large[rows[0] : rows[1], columns[0] : columns[1]] = np.asarray(
            Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)
        )
        large_maps.append(large)
        masks.append(mask)
    return large_maps, masks
