"""Files and folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then renames it to `path`.

    A process that is killed meanwhile leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def create_atomically(path: str | Path, create: Callable[[Path], object]) -> None:
    """Calls `create(temporary)`, which makes a file or a folder there, then renames it to `path`.

    What was at `path` before, even a folder, is replaced; it stays if `create` raises.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        create(temporary)
        if path.is_dir():
            _replace_folder(path, temporary)
        else:
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _replace_folder(path: Path, new: Path) -> None:
    # A folder cannot be renamed over one that holds something.
    old = path.rename(new.with_suffix(".old"))
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old)
