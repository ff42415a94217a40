"""What other programs than the one that runs here have: their modules and flags, imported apart."""

import contextlib
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

from absl import flags

from imvad_jax import methods, programs
from imvad_jax.programs import help_text, program


@contextlib.contextmanager
def _process_of_its_own() -> Iterator[None]:
    """Within it no flag is defined and no module of this package is imported but `program`, which
    defines none itself and which absl knows by its identity.

    Two programs may define a flag of the same name, which one process refuses.
    """
    prefix = programs.__name__ + "."

    def imported() -> dict:
        found = {name: module for name, module in sys.modules.items() if name.startswith(prefix)}
        return {name: module for name, module in found.items() if module is not program}

    modules = imported()
    attributes, state = dict(programs.__dict__), dict(flags.FLAGS.__dict__)
    for name in modules:
        del sys.modules[name]
        programs.__dict__.pop(name.removeprefix(prefix), None)
    flags.FLAGS.__dict__.update(vars(flags.FlagValues()))
    try:
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(modules)
        for old, new in ((flags.FLAGS.__dict__, state), (programs.__dict__, attributes)):
            old.clear()
            old.update(new)


def program_flags(name: str) -> tuple[str, list[flags.Flag]]:
    """The docstring of a program and its flags, without the fields of the methods.

    Of a program whose other flags are those of another one (`SAME_AS`) only the main ones.
    """
    fields = {f.name for m in methods.METHODS.values() for f in dataclasses.fields(m.config)}
    with _imported(name) as module:
        found = help_text.flags_of(module)
        own = flags.FLAGS.flags_by_module_dict().get(module.__name__, [])
    if hasattr(module, "SAME_AS"):
        found = [flag for flag in found if flag.name in module.FIRST]
    # A program may have a flag of its own that is called as a field of the methods.
    return module.__doc__ or "", [flag for flag in found if flag.name not in fields or flag in own]


def flag_names(name: str) -> set[str]:
    """The names of all flags of a program, the fields of the methods among them."""
    with _imported(name) as module:
        return {flag.name for flag in help_text.flags_of(module)}


@contextlib.contextmanager
def _imported(name: str) -> Iterator[ModuleType]:
    """The module of a program, and its flags as a command line would find them."""
    with _process_of_its_own():
        module = importlib.import_module(f"{programs.__name__}.{name}")
        program.set_defaults(module)
        yield module
