"""Where the files of each dataset lie. A new dataset is one new file and one line in LAYOUTS."""

from imvad_jax.data.layouts import (
    btad,
    folder,
    kolektorsdd,
    mpdd,
    mtd,
    mvtec_ad,
    mvtec_loco,
    visa,
)
from imvad_jax.data.layouts.base import Category, Layout, Sample
from imvad_jax.errors import UserError, choose

LAYOUTS: dict[str, Layout] = {
    "btad": btad.BTAD(),
    "folder": folder.Folder(),
    "kolektorsdd": kolektorsdd.KolektorSDD(),
    "mpdd": mpdd.MPDD(),
    "mtd": mtd.MagneticTiles(),
    "mvtec_ad": mvtec_ad.MVTecAD(),
    "mvtec_loco": mvtec_loco.MVTecLOCO(),
    "visa": visa.VisA(),
}


def get(name: str) -> Layout:
    """The layout called `name`. Raises UserError with the nearest valid name."""
    return LAYOUTS[choose("--dataset", name, LAYOUTS)]


def select_categories(layout: Layout, data_dir: str, wanted: list[str]) -> list[str]:
    """The categories that `wanted` names (`all` or none: every one found), in sorted order.

    Raises:
      UserError: a category that is not there, with the nearest that is.
    """
    found = layout.categories(data_dir)
    if not found:
        raise UserError(
            f"--data_dir={data_dir}: no category of dataset '{layout.name}' found there; "
            f"expected {layout.expected}"
        )
    if not wanted or wanted == ["all"]:
        return found
    return [choose(f"--category (in {data_dir})", name, found) for name in dict.fromkeys(wanted)]


__all__ = ["LAYOUTS", "Category", "Layout", "Sample", "get", "select_categories"]
