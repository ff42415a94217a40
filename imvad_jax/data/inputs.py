"""Which images a user means: files, folders with all that lies below them, patterns."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from imvad_jax.data.layouts.base import IMAGE_SUFFIXES
from imvad_jax.errors import UserError


def find_images(
    inputs: Sequence[str], leave_out: str | Path | None = None, flag: str = "--input"
) -> list[str]:
    """Paths of the images that `inputs` name, each once, folders in the order of their names.

    A folder stands for all files below it with the suffix of an image, hidden ones left out; links
    to folders are followed, in circles once. A file that is named itself, or by a pattern, is taken
    whatever its suffix.

    Args:
      inputs: Files, folders and glob patterns (`*`, `?`, `[...]`, and `**` for any folders).
      leave_out: Nothing at or below this folder is taken (what an earlier prediction wrote).
      flag: Which flag gave the inputs, for messages.

    Raises:
      UserError: an input that names nothing, or a folder without images.
    """
    found: dict[str, None] = {}
    for given in inputs:
        paths = list(_expand(given, flag))
        if not paths:
            raise UserError(f"{flag}={given}: no image files there ({', '.join(IMAGE_SUFFIXES)})")
        found.update(dict.fromkeys(paths))
    if leave_out is not None:
        top = os.path.join(os.path.realpath(leave_out), "")
        found = {p: None for p in found if not os.path.abspath(p).startswith(top)}
    if not found:
        raise UserError(f"{flag}: no image files there but those that an earlier prediction wrote")
    return list(found)


def _expand(given: str, flag: str) -> Iterator[str]:
    path = os.path.expanduser(given)
    if os.path.isdir(path):
        yield from _below(path)
    elif os.path.lexists(path):  # a broken link is reported as such when it is read
        yield path
    elif any(sign in given for sign in "*?["):
        for match in sorted(glob.glob(path, recursive=True)):
            if not os.path.isdir(match):
                yield match
            elif "**" not in given:
                yield from _below(match)
    else:
        raise UserError(f"{flag}={given}: no such file or folder")


def _below(folder: str) -> Iterator[str]:
    seen, closed = set(), []
    walk = os.walk(folder, followlinks=True, onerror=lambda error: closed.append(error.filename))
    for top, folders, names in walk:
        here = os.stat(top)
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield os.path.join(top, name)
    yield from closed  # reported when they are read


def display_names(paths: Sequence[str]) -> list[str]:
    """The paths relative to the folder that they share, as text that any file can hold.

    Bytes of a file name that are no UTF-8 are shown as the replacement character.
    """
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    shared = os.path.commonpath(folders) if folders else ""
    names = (os.path.relpath(os.path.abspath(path), shared) for path in paths)
    return [os.fsencode(n).decode("utf-8", "replace").replace(os.sep, "/") for n in names]
