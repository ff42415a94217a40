"""The exception for bad input, which users see as one line, and messages on stderr."""

import difflib
import os
import re
import sys
from collections.abc import Iterable, Sequence

# A setting as a command line writes it: `--image_size`; pip's options have dashes inside.
_FLAG = re.compile(r"(?<![\w-])--(?=[a-z][a-z0-9_]*(?![\w-]))")
# What a terminal obeys, and what turns the order of the text around it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_warned: set[str] = set()  # kinds, by this process


class UserError(ValueError):
    """Bad input. The message names the thing, what was found, what was expected, and the remedy.

    Programs print `text` as one line and exit with status 2. Settings stand there as flags,
    `--image_size=4: ...`; Python's users read them as fields, `image_size=4: ...`.
    """

    @property
    def text(self) -> str:
        """The message as programs print it: one line, whatever a file or a flag put into it."""
        return escaped(super().__str__())

    def __str__(self) -> str:
        return _FLAG.sub("", self.text)


def choose(what: str, value: str, valid: Iterable[str]) -> str:
    """Returns `value` if it is one of `valid`; else raises UserError with the nearest valid one."""
    valid = sorted(valid)
    if value in valid:
        return value
    near = difflib.get_close_matches(str(value), valid, n=1, cutoff=0.4)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UserError(f"{what}: unknown value '{value}'; {hint}valid: {', '.join(valid)}")


def readable(path: str | os.PathLike) -> str:
    r"""A path as text that every file and terminal can hold.

    Bytes of a file name that are no UTF-8 are written as `\xe4`, so that names stay apart, and so
    are the characters that a terminal obeys.
    """
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError:  # an ASCII locale, and the name is from elsewhere
        data = os.fspath(path).encode("utf-8", "surrogateescape")
    return escaped(data.decode("utf-8", "backslashreplace"))


def escaped(text: str, kept: str = "") -> str:
    r"""Text in which the characters that a terminal obeys are written out: `\x1b`.

    Those in `kept` stay.
    """

    def written(found: re.Match) -> str:
        sign = found[0]
        if sign in kept:
            return sign
        return f"\\x{ord(sign):02x}" if ord(sign) < 256 else f"\\u{ord(sign):04x}"

    return _CONTROL.sub(written, text)


def say(text: object = "") -> None:
    """Says on stderr what the work does: standard output is for results alone."""
    print(escaped(str(text), kept="\n\t"), file=sys.stderr, flush=True)


def warn_once(kind: str, text: str) -> None:
    """Says on stderr what the work goes on without: of each kind, a process says the first only."""
    if kind not in _warned:
        _warned.add(kind)
        print("warning: " + escaped(" ".join(text.split())), file=sys.stderr, flush=True)


def join_errors(messages: Sequence[str], most: int = 20) -> str:
    """Several messages about bad files as one: all are named at once, however many there are."""
    if len(messages) == 1:
        return messages[0]
    more = f"; and {len(messages) - most} more" if len(messages) > most else ""
    return f"{len(messages)} files cannot be used: {'; '.join(messages[:most])}{more}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in one line: the first `most` of them, then how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
