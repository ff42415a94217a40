"""The images that a method is measured on: good images of a dataset, or random ones."""

import dataclasses
import functools

from imvad_jax import methods
from imvad_jax.benchmarks.workloads import random_images
from imvad_jax.data import layouts
from imvad_jax.data.batches import Images
from imvad_jax.data.category import CategoryData, open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where the images come from, and how many are taken."""

    num_images: int = 128
    data_dir: str | None = None  # of a dataset; None: random images
    dataset: str = "mvtec_ad"
    category: str | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        """How records call it."""
        return f"{self.dataset}/{self.category}" if self.data_dir else "random"

    def open(self, config: methods.DetectorConfig) -> Images:
        """The images to fit on and to score. Raises UserError where there are too few."""
        if not self.data_dir:
            return random_images(self.num_images, config.input_size, self.seed)
        data = load_category(self, Geometry.of(config))
        if len(data.train) < self.num_images:
            raise UserError(
                f"--num_images={self.num_images}: {data.name} has {len(data.train)} good images"
            )
        return data.train.take(range(self.num_images))


@functools.cache
def load_category(source: Source, geometry: Geometry) -> CategoryData:
    """The category of a source, decoded once. Raises UserError where none is named."""
    if not source.category:
        raise UserError("--category is missing: name the category of --data_dir to take")
    assert source.data_dir  # asked by who calls this
    layout = layouts.get(source.dataset)
    (category,) = layouts.select_categories(layout, source.data_dir, [source.category])
    return open_category(
        source.dataset, source.data_dir, category, geometry, None, seed=source.seed
    )
