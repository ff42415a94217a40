"""Finds the images that a user names: files, folders (recursively), patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from imvad_jax.data.image_files import FORMATS_IN_WORDS
from imvad_jax.data.listing import Listing, NotUsed, list_folder
from imvad_jax.errors import UserError, readable


def find_images(
    inputs: Sequence[str],
    leave_out: str | Path | None = None,
    flag: str = "--input",
    written: Sequence[str] = (),
) -> Listing:
    """The images that `inputs` name, each once, folders in the order of their names.

    A folder stands for all pictures below it, hidden files left out; links to folders are followed,
    in circles once. Its other files are listed with the reason why they are not used. A file that
    is named itself, or by a pattern, is taken whatever it is.

    Args:
      inputs: Files, folders and glob patterns (`*`, `?`, `[...]`, and `**` for any folders).
      leave_out: Nothing at or below this folder is taken (what an earlier prediction wrote).
      flag: Which flag gave the inputs, for messages.
      written: Files that an earlier prediction wrote; they are not named as left out.

    Raises:
      UserError: an input that names nothing, or a folder without images.
    """
    found: dict[str, None] = {}
    not_used: dict[str, NotUsed] = {}
    for given in inputs:
        listing = Listing([], [])
        for images, others in _expand(given, flag):
            listing.images.extend(images)
            listing.not_used.extend(others)
        if not listing.images and not any(item.picture for item in listing.not_used):
            raise UserError(f"{flag}={given}: no image files there ({FORMATS_IN_WORDS})")
        found.update(dict.fromkeys(listing.images))
        not_used.update({item.path: item for item in listing.not_used})
    own = {os.path.abspath(path) for path in written}
    if leave_out is not None:
        top = os.path.join(os.path.realpath(leave_out), "")
        found = {p: None for p in found if not os.path.abspath(p).startswith(top)}
        not_used = {p: i for p, i in not_used.items() if not os.path.abspath(p).startswith(top)}
    others = [item for path, item in not_used.items() if os.path.abspath(path) not in own]
    if not found and not any(item.picture for item in others):
        raise UserError(f"{flag}: the only image files there were written by imvad predict")
    return Listing(list(found), others)


def _expand(given: str, flag: str) -> Iterator[Listing]:
    path = os.path.expanduser(given)
    if os.path.isdir(path):
        yield list_folder(path, recursive=True)
    elif os.path.lexists(path):  # a broken link is reported as such when it is read
        yield Listing([path], [])
    elif any(sign in given for sign in "*?["):
        for match in sorted(glob.glob(path, recursive=True)):
            if not os.path.isdir(match):
                yield Listing([match], [])
            elif "**" not in given:
                yield list_folder(match, recursive=True)
    else:
        raise UserError(f"{flag}={given}: no such file or folder")


def display_names(paths: Sequence[str]) -> list[str]:
    r"""The paths relative to the folder that they share, as text that any file can hold.

    Bytes of a file name that are no UTF-8 are written as `\xe4`.
    """
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    shared = os.path.commonpath(folders) if folders else ""
    names = (os.path.relpath(os.path.abspath(path), shared) for path in paths)
    return [readable(name).replace(os.sep, "/") for name in names]
