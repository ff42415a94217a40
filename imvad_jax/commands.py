"""Commands of this project's programs: as a shell takes them, for records and hints, and as one
program starts another.

A program is started as `imvad NAME`, `python -m imvad_jax NAME` or, in a checkout,
`python -m experiments.NAME`. Which of them it was is in the environment, so that the processes that
a program starts spell commands as it does.
"""

import os
import shlex
import sys
from collections.abc import Sequence

IMVAD = "imvad"
PACKAGE = "python -m imvad_jax"
CHECKOUT = "python -m experiments"
_VARIABLE = "IMVAD_JAX_COMMAND"


def started_by(front: str) -> None:
    """Remembers how the user started this process: `IMVAD`, `PACKAGE` or `CHECKOUT`."""
    os.environ[_VARIABLE] = front


def spelled(name: str) -> str:
    """The command of a program without flags; `imvad NAME` where Python's users started it."""
    front = os.environ.get(_VARIABLE)
    if front == CHECKOUT:
        return f"{CHECKOUT}.{name}"
    return f"{PACKAGE if front == PACKAGE else IMVAD} {name}"


def command(name: str, arguments: Sequence[str] | None = None) -> str:
    """The command of a program of this project, as a shell takes it.

    `arguments` are those that this process was given, if they are not named.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return f"{spelled(name)} {shlex.join(given)}".rstrip()


def python() -> list[str]:
    """The beginning of the command line of a Python process that a program starts."""
    # Started by `imvad`, no file of the working directory may hide an installed module.
    safe = ["-P"] if os.environ.get(_VARIABLE) == IMVAD else []
    return [sys.executable, *safe]


def process(name: str, *arguments: str) -> list[str]:
    """The command line of a process that runs a program of this project."""
    return [*python(), "-m", "imvad_jax.programs.entry", name, *arguments]
