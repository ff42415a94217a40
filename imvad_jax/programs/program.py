"""What every program shares: bad input and bad flags end in one line and exit status 2."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import cast

from absl import app, flags, logging

from imvad_jax.errors import UserError, readable
from imvad_jax.files import REFUSALS
from imvad_jax.programs import stopping, streams
from imvad_jax.programs.command_line import fail, parse
from imvad_jax.training.limit import Stopped

OWN_PROCESS = False  # whether a program of this project started the process

flags.disclaim_key_flags()  # what is defined by the functions below belongs to their callers


class _PathParser(flags.ArgumentParser):
    """A path: `~` and `~user` at its beginning become the home directory."""

    def parse(self, argument):
        return os.path.expanduser(argument) if isinstance(argument, str) else argument


class _SourcesParser(flags.ArgumentParser):
    """`SOURCE` or `NAME=SOURCE`, several separated by commas; each source may be a path."""

    def parse(self, argument):
        if not isinstance(argument, str):
            return argument
        entries = (entry.rpartition("=") for entry in argument.split(","))
        return ",".join(name + equals + os.path.expanduser(path) for name, equals, path in entries)


def define_path(name: str, default: str | None, help: str) -> flags.FlagHolder:
    """Defines a flag that takes a path. Every flag that does is defined by this or its siblings."""
    return flags.DEFINE(_PathParser(), name, default, help, serializer=flags.ArgumentSerializer())


def define_paths(name: str, default: list[str], help: str) -> flags.FlagHolder:
    """Defines a flag that takes a path or pattern and may be given several times."""
    return flags.DEFINE_multi(_PathParser(), flags.ArgumentSerializer(), name, default, help)


def define_sources(name: str, default: str | None, help: str) -> flags.FlagHolder:
    """Defines a flag that takes sources of weights, among them files."""
    return flags.DEFINE(
        _SourcesParser(), name, default, help, serializer=flags.ArgumentSerializer()
    )


def guard(main: Callable[[], int | None]) -> int | None:
    """Calls `main`; a UserError becomes one line on stderr and exit status 2.

    So does what the system refuses (`REFUSALS`). Work that a limit of time ended is one line,
    too, with the exit status that it carries. Where nobody reads the output any more (`| head`),
    the work ends without a word, as the shell's own programs do.
    """
    try:
        status = main()
        sys.stdout.flush()
        return status
    except UserError as error:
        stopping.wait_to_leave()  # perhaps a child has been told, too, and that is all
        fail(error.text)
    except BrokenPipeError:
        streams.abandon()
        return streams.CLOSED
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        streams.abandon()  # it may have been the output itself
        what = error.filename or "standard output or a temporary file"
        fail(f"{readable(what)}: {error.strerror}")
    except Stopped as stopped:
        message, status = str(stopped), stopped.status
    # Only now the work is let go of, and its progress bar closed.
    print(message, file=sys.stderr)
    return status


def set_defaults(module: ModuleType) -> None:
    """Flags of another program that the module takes over: its own `DEFAULTS` and `HELP`."""
    for name, value in getattr(module, "DEFAULTS", {}).items():
        flags.FLAGS.set_default(name, value)
    for name, text in getattr(module, "HELP", {}).items():
        flags.FLAGS[name].help = text


def start(module: ModuleType) -> None:
    """Runs the program of a module of this package that a user started.

    The module has `main`, and perhaps `prepare`, `DEFAULTS`, `HELP` and `FIRST` (`help_text`).
    `--help` shows its description and its flags.
    """
    set_defaults(module)
    run(module.main, getattr(module, "prepare", lambda argv: None), module)


def run(
    main: Callable[[], int | None],
    prepare: Callable[[Sequence[str]], None] = lambda argv: None,
    module: ModuleType | None = None,
) -> None:
    """Parses the flags and runs `main` under `guard`; `prepare` may define more flags before.

    From here on, at the latest, signals end the process in order.
    """
    global OWN_PROCESS
    OWN_PROCESS = True
    stopping.listen()

    def start(argv):
        del argv
        logging.set_verbosity(logging.WARNING)
        try:
            status = guard(main)
        except SystemExit as end:
            status = cast("int | None", end.code)  # ours are numbers
        except BaseException:
            stopping.wait_to_leave()
            raise
        return stopping.closing(status)

    streams.prepare()
    try:
        app.run(start, flags_parser=partial(parse, prepare=prepare, module=module))
    finally:
        guard(sys.stdout.flush)  # what is left, such as the text of --help
