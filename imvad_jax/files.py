"""Files and folders that are there whole or not at all.

What is written goes to a temporary name beside its place, `.NAME.imvad_jax-HOST-PID-TOKEN.tmp`, and
is renamed when it is complete. What a killed process leaves under such a name is swept by the next
one that writes into the folder.
"""

import contextlib
import functools
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from imvad_jax.leaving import undone_by

OLD = 24 * 3600  # seconds without a change, after which a temporary file is nobody's any more
_TOKEN = secrets.token_hex(3)  # a process of an earlier life may have had the same number
_TEMPORARY = re.compile(r"\..*\.imvad_jax-(?P<host>\w+)-(?P<pid>\d+)-(?P<token>[0-9a-f]{6})\.tmp")
# The names of before carried neither the program nor the host: only of files that it alone writes.
_EARLIER = re.compile(
    r"\.((config|metrics|timings|calibration|history|error|table)\.json|predictions\.npz"
    r"|.+-\d+-\d+-(tiles-\d+-\d+-)?[0-9a-f]{12}\.(npz|raw))\.\d+\.tmp"
)
_swept: set[str] = set()  # folders, by this process


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then renames it to `path`.

    A process that is killed meanwhile leaves what was there before.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    temporary = temporary_path(path)
    try:
        with undone_by(functools.partial(_remove, temporary)):
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def create_atomically(path: str | Path, create: Callable[[Path], object]) -> None:
    """Calls `create(temporary)`, which makes a file or a folder there, then renames it to `path`.

    What was at `path` before, even a folder, is replaced; it stays if `create` raises. A folder
    cannot be renamed over another one in one step: it is set aside first, and a process that is
    killed right then leaves it aside. `recover` puts it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    recover(path)
    temporary = temporary_path(path)
    try:
        with undone_by(functools.partial(_remove, temporary)):
            create(temporary)
        if path.is_dir() and not path.is_symlink():
            _replace_folder(path, temporary)
        else:
            os.replace(temporary, path)
    finally:
        _remove(temporary)


def recover(path: str | Path) -> None:
    """Ends what a killed `create_atomically` began: the folder set aside comes back to `path`, or
    goes where the new one is in its place already.
    """
    path = Path(path)
    aside = _aside(path)
    if not os.path.lexists(aside):
        return
    if os.path.lexists(path):
        _remove(aside)
    else:
        os.rename(aside, path)


def temporary_path(path: Path) -> Path:
    """Where `path` is put together: a name that no other process on any host takes."""
    return path.with_name(f".{_short(path.name)}.imvad_jax-{host()}-{os.getpid()}-{_TOKEN}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that we have not completed or have set aside."""
    return bool(_TEMPORARY.fullmatch(name) or _EARLIER.fullmatch(name)) or (
        name.startswith(".") and name.endswith(".imvad_jax.old")
    )


def sweep(folder: str | Path) -> None:
    """Removes the temporary files and folders in `folder` whose process is gone, or that nothing
    was written to for a day. Nothing else is touched.
    """
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            found, earlier = _TEMPORARY.fullmatch(entry.name), _EARLIER.fullmatch(entry.name)
            if (found and _is_left(found, entry.path)) or (earlier and _is_old(entry.path)):
                _remove(Path(entry.path))


@functools.cache
def host() -> str:
    """The name of this machine, as it can stand in a file name."""
    return re.sub(r"\W", "_", platform.node(), flags=re.ASCII)[:40] or "host"


def _sweep_once(folder: Path) -> None:
    where = os.path.abspath(folder)
    if where not in _swept:
        _swept.add(where)
        sweep(folder)


def _is_left(found: re.Match, path: str) -> bool:
    if found["host"] == host():
        if found["token"] == _TOKEN:
            return False
        if int(found["pid"]) == os.getpid():
            return True
        try:
            os.kill(int(found["pid"]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:  # it is another user's
            pass
    return _is_old(path)


def _is_old(path: str) -> bool:
    """Whether nothing at or below `path` was written to for a day."""
    paths = [path] + [os.path.join(top, n) for top, d, f in os.walk(path) for n in (*d, *f)]
    with contextlib.suppress(OSError):
        return time.time() - max(os.lstat(name).st_mtime for name in paths) > OLD
    return False


def _replace_folder(path: Path, new: Path) -> None:
    aside = _aside(path)
    os.rename(path, aside)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(aside, path)
        raise
    _remove(aside)


def _aside(path: Path) -> Path:
    return path.with_name(f".{_short(path.name)}.imvad_jax.old")


def _short(name: str) -> str:
    # File names end at 255 bytes.
    return os.fsdecode(os.fsencode(name)[:120])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
