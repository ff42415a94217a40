"""The command line of a program: its flags parsed, `--help`, and what is said of wrong ones."""

import difflib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags

from imvad_jax.commands import spelled
from imvad_jax.errors import UserError, escaped, listed
from imvad_jax.programs import help_text, registry, streams


def fail(message: str) -> NoReturn:
    """Prints one line and ends the program with status 2."""
    print("error: " + escaped(" ".join(str(message).split())), file=sys.stderr)
    sys.exit(2)


def parse(
    argv: Sequence[str],
    prepare: Callable[[Sequence[str]], None] = lambda argv: None,
    module: ModuleType | None = None,
) -> list[str]:
    """Parses a command line, the program's name first, after `prepare` has seen it.

    `module` is that of the program: `--help` describes it and ends the process.
    """
    try:
        prepare(argv)
        if module is not None and (wanted := help_text.asked_for(argv[1:])):
            show(help_text.text(module, full=wanted in help_text.FULL))
        rest = flags.FLAGS(list(argv))
    except flags.UnrecognizedFlagError as error:
        fail(unknown_flag(error.flagname, module))
    except flags.Error as error:
        fail(str(error))
    except UserError as error:
        fail(error.text)
    if len(rest) > 1:
        fail(f"unexpected argument '{rest[1]}'; flags are written --name=value{_example(module)}")
    return rest


def _example(module: ModuleType | None) -> str:
    if module is None:
        return ""
    names = [flag.name for flag in help_text.flags_of(module)]
    if "input" in names:  # a shell has written out a pattern
        return ", and patterns in quotes: --input='parts/*.png'"
    return f", as in {spelled(help_text.name_of(module))} --{names[0]}=..."


def show(text: str) -> NoReturn:
    """Prints the text of a help and ends the process: status 141 if nobody reads it (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        streams.abandon()
        sys.exit(streams.CLOSED)
    sys.exit(0)


def unknown_flag(name: str, module: ModuleType | None) -> str:
    """What is said of a flag that the program has not: the nearest that it has, and whose it is."""
    if module is None:
        near = difflib.get_close_matches(name, list(flags.FLAGS), n=1)
        return f"--{name}: no such flag" + (f"; did you mean --{near[0]}?" if near else "")
    own = [flag.name for flag in help_text.flags_of(module)]
    program, parts = help_text.name_of(module), []
    plain = name.lower().replace("-", "_")
    if near := difflib.get_close_matches(plain, own, n=1, cutoff=0.7):
        parts.append(f"did you mean --{near[0]}?")
    if owners := _programs_with(name, besides=program):
        parts.append(f"it is one of {listed([spelled(owner) for owner in owners], most=3)}")
    parts.append(f"{spelled(program)} --helpfull lists all flags")
    return f"--{name}: no flag of {spelled(program)}; {'; '.join(parts)}"


def _programs_with(flag: str, besides: str) -> list[str]:
    """The other programs that have a flag."""
    # Their modules are imported for it: only where something is wrong already.
    from imvad_jax.programs import apart

    others = [name for name in registry.PROGRAMS if name != besides]
    return [name for name in others if flag in apart.flag_names(name)]
