"""Directory locks: only one process at a time writes to a directory, and the lock names its holder.

The lock is the file `files.LOCK`, which contains host, process and start time, and on which its
holder keeps a system lock (`flock`). A killed holder leaves the file behind, but the system has
released the lock, and no process with that number and start time exists. On file systems without
`flock`, only number and start time decide.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from imvad_jax.errors import UserError, readable, say
from imvad_jax.files import LOCK, host, not_written
from imvad_jax.leaving import undone_by

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class Held(UserError):
    """Another process writes to the directory."""


@contextlib.contextmanager
def hold(
    directory: str | Path, flag: str = "--workdir", log: Callable[[str], object] = say
) -> Iterator[None]:
    """Holds the lock of a directory, which is made if need be and goes again if it stays empty.

    Args:
      directory: Is written to within the context by this process alone.
      flag: Which flag named it, for messages.
      log: Is told of a holder that ended without letting go.

    Raises:
      Held: another process holds it; it is named.
      NotWritten: the directory cannot be written to.
    """
    directory = Path(directory)
    try:
        made = not directory.is_dir()
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = _take(directory / LOCK, f"{flag}={directory}", log)
    except OSError as error:
        raise not_written(directory, error) from None

    def release():
        with contextlib.suppress(OSError):  # somebody took it away
            if _is_at(descriptor, directory / LOCK):
                os.unlink(directory / LOCK)

    try:
        with undone_by(release):
            yield
    finally:
        release()
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):  # something is in it
                directory.rmdir()


def _take(path: Path, what: str, log: Callable[[str], object]) -> int:
    """The open file of the lock, held."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            held = _flock(descriptor)
            if not _is_at(descriptor, path):  # its holder has just removed it
                os.close(descriptor)
                continue
            holder = _read(descriptor)
            if held is False or (holder and not _has_ended(holder)):
                raise Held(_refusal(what, path, holder or {}))
            if holder:
                log(f"note: {what}: {_who(holder)} ended without letting go of it; going on")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_myself()).encode() + b"\n", 0)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _flock(descriptor: int) -> bool | None:
    """Whether this process holds the system's lock of a file; None where there is no such thing."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _read(descriptor: int) -> dict | None:
    """Who is named in a lock; None in a new one, empty where it cannot be read."""
    data = os.pread(descriptor, 1 << 12, 0)
    if not data.strip():
        return None
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _has_ended(holder: dict) -> bool:
    """Whether the process that a lock names lives no more, as far as this host can tell."""
    if holder.get("host") != host():
        return False
    if holder.get("boot") != _boot():
        return True  # the machine was started anew
    pid = holder.get("pid")
    return not isinstance(pid, int) or process_start(pid) != holder.get("start")


def process_start(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None where no such process lives.

    Where the system does not tell starts, 0 stands for one that lives.
    """
    if os.path.exists("/proc/self/stat"):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else int(fields[19])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:  # it is another user's
        pass
    return 0


def _boot() -> str:
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return ""


def _myself() -> dict:
    return {
        "host": host(),
        "pid": os.getpid(),
        "start": process_start(os.getpid()),
        "boot": _boot(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _refusal(what: str, path: Path, holder: dict) -> str:
    if not holder:
        return f"{what}: another process writes there; wait until it has ended"
    if holder.get("host") == host():
        remedy = "wait until it has ended, or choose another directory"
    else:
        remedy = (
            f"wait until it has ended; if it did, which this host cannot tell, delete "
            f"{readable(path)}"
        )
    return f"{what}: {_who(holder)} writes there; {remedy}"


def _who(holder: dict) -> str:
    number, name, since = (str(holder.get(key))[:80] for key in ("pid", "host", "since"))
    return f"process {number} on {name}, which began on {since},"
