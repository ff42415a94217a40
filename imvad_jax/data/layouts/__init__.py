"""Layouts of datasets: where their files are. A new one is a new file and a line in LAYOUTS."""

from imvad_jax.data.layouts import (
    base,
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


def select_categories(
    layout: Layout, data_dir: str, wanted: list[str], recursive: bool = False
) -> list[str]:
    """The categories that `wanted` names (`all` or none: every one found), in sorted order.

    Raises:
      UserError: a category that is not there, with the nearest that is; `recursive` where the
        dataset says itself where its images lie.
    """
    found = layout.categories(data_dir, **_descend(layout, recursive))
    if not found:
        hint = "; --dataset=folder takes folders of your own" if _is_own(layout, data_dir) else ""
        raise UserError(
            f"--data_dir={data_dir}: no category of dataset '{layout.name}' found there, but "
            f"{_contents(data_dir)}; expected {layout.expected}{hint}"
        )
    if not wanted or wanted == ["all"]:
        return found
    return [choose(f"--category (in {data_dir})", name, found) for name in dict.fromkeys(wanted)]


def read_category(
    layout: Layout, data_dir: str, name: str, seed: int = 0, recursive: bool = False
) -> Category:
    """The files of a category. Raises UserError as `Layout.category` and `select_categories`."""
    return layout.category(data_dir, name, seed, **_descend(layout, recursive))


def _descend(layout: Layout, recursive: bool) -> dict:
    if recursive and layout.published:
        raise UserError(
            f"--recursive: only with --dataset=folder; the folders of '{layout.name}' are fixed"
        )
    return {"recursive": True} if recursive else {}


def _is_own(layout: Layout, data_dir: str) -> bool:
    """Whether it is a folder of good images, looked at as another dataset."""
    own = LAYOUTS["folder"]
    return layout is not own and bool(own.categories(data_dir))


def _contents(data_dir: str) -> str:
    """What lies directly in a directory, in words."""
    path = base.require_directory(data_dir)
    names = base.subdirectories(path)
    listed = f" ({', '.join(names[:5])}{', ...' if names[5:] else ''})" if names else ""
    return f"{len(base.image_files(path))} image files and {len(names)} folders{listed}"


__all__ = ["LAYOUTS", "Category", "Layout", "Sample", "get", "read_category",
           "select_categories"]  # fmt: skip
