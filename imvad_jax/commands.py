"""Commands of this project's programs as a shell takes them, for records and hints."""

import shlex
import sys
from collections.abc import Sequence


def command(name: str, arguments: Sequence[str] | None = None) -> str:
    """The command of a program of this project, as a shell takes it.

    `arguments` are those that this process was given, if they are not named.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", f"experiments.{name}", *given])
