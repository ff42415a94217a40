"""A small dataset in MVTec AD's layout which the project draws itself: no download, no licence.

`write_demo_dataset(out_dir)` takes seconds, depends on the seed alone, and gives what a real
inspection line gives: parts that vary in pose, colour and light, and defects with exact masks.
"""

from imvad_jax.data.demo.catalogue import CATEGORIES, Category, draw
from imvad_jax.data.demo.writer import write_demo_dataset

__all__ = ["CATEGORIES", "Category", "draw", "write_demo_dataset"]
