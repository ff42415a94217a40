"""What `--help` and `--helpfull` of a program say.

A program names in `FIRST` the flags that most users need, in their order; `--help` shows these.
"""

import inspect
import shutil
import textwrap
from collections.abc import Iterable
from types import ModuleType

from absl import flags

from imvad_jax.commands import spelled

_WIDEST = 100  # columns
_COLUMN = 20  # of the names of flags

SHORT = ("h", "help", "?", "helpshort")
FULL = ("helpfull",)


def asked_for(argv: Iterable[str]) -> str:
    """Which flag of `SHORT` or `FULL` a command line without the program holds; empty: none."""
    for argument in argv:
        if argument == "--":
            break
        name = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and name in (*SHORT, *FULL):
            return name
    return ""


def name_of(module: ModuleType) -> str:
    """The name of a program by its module."""
    return module.__name__.rpartition(".")[2]


def flags_of(module: ModuleType) -> list[flags.Flag]:
    """All flags of a program, those of `FIRST` first."""
    found = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(module)}
    first = [found.pop(name) for name in getattr(module, "FIRST", ()) if name in found]
    return [*first, *found.values()]


def text(module: ModuleType, full: bool) -> str:
    """The description of a program and its main flags, or all of them (`full`)."""
    found, first = flags_of(module), getattr(module, "FIRST", ())
    short = found if full or not first else [flag for flag in found if flag.name in first]
    lines = [
        inspect.cleandoc(module.__doc__ or ""),
        "",
        "Flags:" if short is found else "Main flags:",
    ]
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    for flag in short:
        lines += _lines(flag, width)
    if len(short) < len(found):
        more = f"{len(found) - len(short)} more flags: {spelled(name_of(module))} --helpfull"
        lines += ["", more]
    return "\n".join(lines)


def _lines(flag: flags.Flag, width: int) -> list[str]:
    switch = "[no]" if flag.boolean else ""
    name = f"  --{switch}{flag.name}"
    said = " ".join((flag.help or "").split()).removesuffix(
        "; repeat this option to specify a list of values"
    )
    if flag.default not in (None, False, "", []):
        value = flag.default
        value = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        said += f" (default: {value})"
    wrapped = textwrap.wrap(said, max(width - _COLUMN - 2, 20)) or [""]
    indent = " " * (_COLUMN + 2)
    if len(name) > _COLUMN:
        return [name, *(indent + line for line in wrapped)]
    return [f"{name:{_COLUMN}}  {wrapped[0]}", *(indent + line for line in wrapped[1:])]
