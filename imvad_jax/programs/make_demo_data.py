"""Draws the demo dataset: imvad make_demo_data --out=DIR

About 20 s on one core for all categories at 256 x 256.
"""

from absl import flags

from imvad_jax.data.demo import CATEGORIES, write_demo_dataset
from imvad_jax.errors import UserError
from imvad_jax.programs import program, stopping

_OUT = program.define_path("out", None, "New or empty folder to write to.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the whole dataset.")
_SIZE = flags.DEFINE_integer("size", 256, "Height and width of the images, in pixels.")
_CATEGORIES = flags.DEFINE_list(
    "categories", ["all"], f"Comma-separated categories, or all: {', '.join(CATEGORIES)}."
)


def main() -> None:
    """The program."""
    if not _OUT.value:
        raise UserError("--out is missing; expected the folder to write, --out=DIR")
    stopping.goes_on()
    categories = None if _CATEGORIES.value == ["all"] else _CATEGORIES.value
    write_demo_dataset(_OUT.value, categories, seed=_SEED.value, size=_SIZE.value)
