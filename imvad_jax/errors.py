"""The one exception for bad input: a clear line for the user, never a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message names the thing, what was found, what was expected, and the remedy.

    Programs print it as one line and exit with status 2.
    """


def choose(what: str, value: str, valid: Iterable[str]) -> str:
    """Returns `value` if it is one of `valid`; else raises UserError with the nearest valid one."""
    valid = sorted(valid)
    if value in valid:
        return value
    near = difflib.get_close_matches(str(value), valid, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"{what}: unknown value '{value}'; {hint}valid: {', '.join(valid)}")
