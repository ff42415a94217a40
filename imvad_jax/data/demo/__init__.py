"""A small synthetic dataset in MVTec AD's layout: no download, no third-party licence.

`write_demo_dataset(out_dir)` takes seconds and depends only on the seed. It imitates an inspection
line: parts vary in pose, colour and light, and defects have exact masks.
"""

from imvad_jax.data.demo.catalogue import CATEGORIES, Category, draw
from imvad_jax.data.demo.writer import write_demo_dataset

__all__ = ["CATEGORIES", "Category", "draw", "write_demo_dataset"]
