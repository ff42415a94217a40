"""Finds the categories of a dataset, in its files or in the decoded cache."""

from imvad_jax.data import layouts
from imvad_jax.data.decoded_cache import cached_categories
from imvad_jax.errors import UserError, choose


def find_categories(
    wanted: list[str],
    *,
    dataset: str,
    data_dir: str | None = None,
    decoded_dir: str | None = None,
    recursive: bool = False,
) -> list[str]:
    """The categories that `wanted` names (`all` or none: every one found), in sorted order.

    Args:
      wanted: Names of categories.
      dataset: The name of its layout.
      data_dir: The directory of the dataset; None: those in the decoded cache are found.
      decoded_dir: The directory of the decoded cache.
      recursive: As the flag of imvad run of this name.

    Raises:
      UserError: one is not there, or there is nothing to read.
    """
    layout = layouts.get(dataset)
    if data_dir:
        return layouts.select_categories(layout, data_dir, wanted, recursive)
    found = cached_categories(decoded_dir, dataset)
    if dataset == "folder" and found and wanted in ([], ["all"]):
        # Not whatever folder was fitted on last.
        raise UserError(
            "--data_dir is missing: name the folder of your images, or choose a --category from "
            f"the decoded cache: {', '.join(found)}"
        )
    if not found:
        layouts.base.require_directory("")  # says what is missing
    chosen = found if wanted in ([], ["all"]) else wanted
    return [choose("--category (in the cache)", name, found) for name in chosen]
