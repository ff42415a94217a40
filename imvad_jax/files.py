"""Atomic writes: files and folders exist completely or not at all.

Data is written to a temporary name in the same folder, `.NAME.imvad_jax-HOST-PID-TOKEN.tmp`, which
is renamed when it is complete. The next process that writes to the folder removes the temporary
files of a killed one.
"""

import contextlib
import errno
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

from imvad_jax.errors import UserError, readable, warn_once
from imvad_jax.leaving import undone_by

LOCK = ".imvad_jax.lock"  # in a directory that a process writes to (`locks`)
OLD = 24 * 3600  # seconds without a change, after which a temporary file is nobody's any more
_TOKEN = secrets.token_hex(3)  # a process of an earlier life may have had the same number
_TEMPORARY = re.compile(r"\..*\.imvad_jax-(?P<host>\w+)-(?P<pid>\d+)-(?P<token>[0-9a-f]{6})\.tmp")
# Earlier names had neither program nor host: swept only for files that this program alone writes.
_EARLIER = re.compile(
    r"\.((config|metrics|timings|calibration|history|error|table)\.json|predictions\.npz"
    r"|.+-\d+-\d+-(tiles-\d+-\d+-)?[0-9a-f]{12}\.(npz|raw))\.\d+\.tmp"
)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a full disk, a read-only place, a missing permission, a long name or a bad disk gives.
REFUSALS = (
    *_NO_SPACE, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO
)  # fmt: skip
_swept: set[str] = set()  # folders, by this process


class NotWritten(UserError):
    """A file or folder that the system did not let us write; what was there before is unharmed."""


def write_atomically(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then renames it to `path`.

    A process that is killed meanwhile leaves what was there before.

    Raises:
      NotWritten: for example, the disk is full or read-only; what was there before stays.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        with undone_by(functools.partial(_remove, temporary)):
            with open(temporary, "wb") as file:
                write(file)
            os.replace(temporary, path)
    except BaseException as error:
        said = None
        if isinstance(error, OSError) and _is_about(error, path):
            said = not_written(path, error, _size(temporary))  # while it still takes its room
        with contextlib.suppress(OSError):
            temporary.unlink()
        if said:
            raise said from None
        raise


def kept_if_possible(write: Callable[[], object]) -> bool:
    """Calls `write()`, which keeps what can be made again; where it cannot, one warning says so.

    Returns:
      Whether it was written.
    """
    try:
        write()
    except NotWritten as error:
        warn_not_kept(error.text)
        return False
    return True


def warn_not_kept(reason: str) -> None:
    """Says once that the cache is not written."""
    warn_once("cache", f"{reason}; going on without keeping it for later runs (--cache_dir)")


def not_written(path: str | Path, error: OSError, written: int | None = None) -> NotWritten:
    """What is said of a file or folder that cannot be written: its name, why, and the bytes.

    Args:
      path: What was to be written.
      error: What the system said.
      written: How many bytes of it there were; None: not known.
    """
    path = Path(path)
    reason = error.strerror or " ".join(str(error).split())
    if error.errno in _NO_SPACE:
        after = f" after {written:,} bytes" if written is not None else ""
        reason += f"{after}; {_free_bytes(path.parent):,} bytes are free there"
    kept = "; what was there before is as it was" if os.path.lexists(path) else ""
    return NotWritten(f"{readable(path)}: cannot be written ({reason}){kept}")


def create_atomically(path: str | Path, create: Callable[[Path], object]) -> None:
    """Calls `create(temporary)`, which makes a file or a folder there, then renames it to `path`.

    What was at `path` before, even a folder, is replaced; it stays if `create` raises. A folder
    cannot be renamed over another one in one step: it is set aside first, and a process that is
    killed right then leaves it aside. `recover` puts it back.

    Raises:
      NotWritten: for example, the disk is full or read-only; what was there before stays.
    """
    path = Path(path)
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent)
        recover(path)
        with undone_by(functools.partial(_remove, temporary)):
            create(temporary)
        if path.is_dir() and not path.is_symlink():
            _replace_folder(path, temporary)
        else:
            os.replace(temporary, path)
    except OSError as error:
        if _is_about(error, path):
            raise not_written(path, error, _size(temporary)) from None
        raise
    finally:
        with contextlib.suppress(OSError):
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
    """Whether a file or folder of this name is one that we have not completed or have set aside,
    or the lock of a directory.
    """
    return bool(_TEMPORARY.fullmatch(name) or _EARLIER.fullmatch(name)) or (
        name == LOCK or (name.startswith(".") and name.endswith(".imvad_jax.old"))
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
    # File names end at 255 bytes, and some file systems take whole characters only.
    data = name.encode("utf-8", "surrogateescape")
    return name if len(data) <= 120 else data[:120].decode("utf-8", "ignore")


def _size(path: Path) -> int | None:
    """Bytes of a file, or of all files in a folder; None where there is none."""
    with contextlib.suppress(OSError):
        if not path.is_dir():
            return path.stat().st_size
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return None


def _free_bytes(folder: Path) -> int:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free


def _is_about(error: OSError, path: Path) -> bool:
    """Whether an error is of writing `path`, and not of a file that was read for it, or of what was
    said meanwhile."""
    if isinstance(error, BrokenPipeError):
        return False
    if error.filename is None or not isinstance(error.filename, str | os.PathLike):
        return True
    there, parent = Path(error.filename).absolute(), path.parent.absolute()
    return there.is_relative_to(parent) or parent.is_relative_to(there)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
