"""What every program shares: flags that fail in one line, JAX set up before it starts."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from imvad_jax.errors import UserError

_CACHE_DIR = flags.DEFINE_string(
    "cache_dir",
    None,
    "Directory of the decoded images and compiled programs that later runs use again; empty: "
    "keep none. Default: $IMVAD_CACHE, else imvad_jax in the user's cache directory.",
)
_NUM_DEVICES = flags.DEFINE_integer(
    "num_devices", 0, "Devices that share the work; 0: all (on the CPU: one a core)."
)


def cache_dir() -> Path | None:
    """The directory for decoded images and compiled programs, or None to keep none."""
    if _CACHE_DIR.value is not None:
        return Path(_CACHE_DIR.value).expanduser() if _CACHE_DIR.value else None
    if os.environ.get("IMVAD_CACHE"):
        return Path(os.environ["IMVAD_CACHE"]).expanduser()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "imvad_jax"


def start_jax():
    """Sets JAX up and returns the devices in use. To be called before JAX runs anything.

    On the CPU every core becomes a device: batches split over them run faster than one device
    that uses all cores. The persistent compilation cache is on unless `--cache_dir` is empty.
    """
    import jax

    from imvad_jax.training import parallel

    if not jax._src.xla_bridge.backends_are_initialized():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        wanted = _NUM_DEVICES.value or cores or os.cpu_count() or 1
        jax.config.update("jax_num_cpu_devices", max(wanted, 1))
    if cache_dir():
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    return parallel.choose_devices(_NUM_DEVICES.value)


def fail(message: str) -> None:
    """Prints one line and ends the program with status 2."""
    print("error: " + " ".join(str(message).split()), file=sys.stderr)
    sys.exit(2)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        rest = flags.FLAGS(list(argv))
    except flags.Error as error:
        fail(str(error))
    if flags.FLAGS.help or flags.FLAGS.helpshort or flags.FLAGS.helpfull:
        return rest
    if len(rest) > 1:
        fail(f"unexpected argument '{rest[1]}'; flags are written --name=value")
    return rest


def run(main: Callable[[], int | None]) -> None:
    """Runs `main`; a UserError becomes one line on stderr and exit status 2."""

    def guarded(argv):
        del argv
        logging.set_verbosity(logging.WARNING)
        try:
            return main()
        except UserError as error:
            fail(str(error))

    app.run(guarded, flags_parser=_parse)
