"""Flags and set-up of JAX, for programs that compute: devices, and what is kept between runs."""

import contextlib
import os
import re
import tempfile
import warnings
from pathlib import Path

from absl import flags

from imvad_jax import files
from imvad_jax.errors import readable
from imvad_jax.programs import program

_CACHE_DIR = program.define_path(
    "cache_dir",
    None,
    "Cache directory for decoded images and compiled programs; empty disables the cache. Default: "
    "$IMVAD_CACHE, otherwise imvad_jax in the user's cache directory.",
)
_NUM_DEVICES = flags.DEFINE_integer(
    "num_devices", 0, "Number of devices to use per host; 0 means all (on the CPU, one per core)."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of the first process, for a run over several hosts."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", 1, "Number of processes of the run, one per host. Give all of them the same "
    "flags except --process_id, and a --workdir that all of them can access."
)  # fmt: skip
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", 0, "Index of this process, from 0 (the first) to num_processes - 1."
)


_PROBE = 1 << 20  # bytes: as a larger program takes
_JAX_COMPLAINS = re.compile("Error (writing|reading) persistent compilation cache entry")


def cache_dir() -> Path | None:
    """The directory for decoded images and compiled programs, or None to keep none."""
    if _CACHE_DIR.value is not None:
        return Path(_CACHE_DIR.value) if _CACHE_DIR.value else None
    if os.environ.get("IMVAD_CACHE"):
        return Path(os.environ["IMVAD_CACHE"]).expanduser()
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in many containers
        files.warn_not_kept("this user has no home directory")
        return None
    return Path(home) / "imvad_jax"


def decoded_dir() -> str | None:
    """Where decoded images are kept, or None."""
    kept = cache_dir()
    return str(kept / "decoded") if kept else None


def start_jax():
    """Sets JAX up and returns the devices in use. To be called before JAX runs anything.

    On the CPU every core becomes a device: batches split over them run faster than one device
    that uses all cores. The persistent compilation cache is on unless `--cache_dir` is empty; it
    may be copied to another path.
    """
    import jax

    from imvad_jax.training import hosts, parallel

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # the devices are fixed once JAX runs (in tests)
        jax.config.update("jax_num_cpu_devices", max(_NUM_DEVICES.value or cores or 1, 1))
    hosts.connect(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if kept := cache_dir():
        _keep_programs(kept / "compiled")
        # XLA's own caches are told their path by an option that is part of a program's key: with
        # them, nothing would be found again in a directory that was moved.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return parallel.choose_devices(_NUM_DEVICES.value)


def _keep_programs(directory: Path) -> None:
    """Compiled programs are read from a directory, and kept there where it can be written."""
    import jax

    shortest = 0.05  # seconds of compilation that are worth a file
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(_PROBE))
    except OSError as error:
        files.warn_not_kept(f"{readable(directory)}: cannot be written ({error.strerror})")
        shortest = float("inf")
    if not os.access(directory, os.R_OK | os.X_OK) or not directory.is_dir():
        return  # JAX would complain of every program
    _complain_once()
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", shortest)


def _complain_once() -> None:
    """JAX warns of every program that a disk that has become full does not take; once will do."""
    if not program.OWN_PROCESS:
        return
    show = warnings.showwarning

    def shown(message, *about, **more):
        if _JAX_COMPLAINS.match(str(message)):
            files.warn_not_kept(str(message))
        else:
            show(message, *about, **more)

    warnings.showwarning = shown
