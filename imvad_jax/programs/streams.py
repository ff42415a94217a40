"""Standard output and error of a program, whatever terminal, pipe or nothing is behind them."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable

from imvad_jax.errors import escaped

CLOSED = 128 + getattr(signal, "SIGPIPE", 13)  # exit status where nobody reads the output any more
_CLOSED_LOOP = "Event loop is closed"


class _Escaped(io.TextIOWrapper):
    """Text in which names of files and folders give the terminal no orders."""

    beneath: io.TextIOWrapper  # whose buffer this one has

    def write(self, text: str) -> int:
        super().write(escaped(text, kept="\n\t"))
        return len(text)


def prepare() -> None:
    """Makes output safe: what a terminal would obey is written out as `\\x1b`, and what it cannot
    show as `\\xe9`. A closed output swallows what it is given.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for the program's life
    sys.unraisablehook = _without_closed_loops(sys.unraisablehook)
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        escaped_out = _Escaped(
            out.buffer, out.encoding, "backslashreplace", line_buffering=out.line_buffering,
            write_through=out.write_through,
        )  # fmt: skip
        escaped_out.beneath = out  # else it would close the buffer
        sys.stdout = escaped_out


def _without_closed_loops(show: Callable) -> Callable:
    """`sys.unraisablehook` without what a failed save of orbax leaves behind: callbacks to a loop
    of asyncio that is gone. The failure itself is raised."""

    def shown(about) -> None:
        if not (isinstance(about.exc_value, RuntimeError) and _CLOSED_LOOP in str(about.exc_value)):
            show(about)

    return shown


def abandon() -> None:
    """Nothing more is written: the interpreter would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
