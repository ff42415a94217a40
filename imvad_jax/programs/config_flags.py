"""One flag for every field of every method's configuration, and what was given by them."""

import dataclasses
from collections.abc import Sequence

from absl import flags

from imvad_jax import methods
from imvad_jax.errors import UserError


def define_config_flags() -> None:
    """Defines one flag for every field of every method's configuration."""
    users: dict[str, list[str]] = {}
    for name, method in methods.METHODS.items():
        for field in dataclasses.fields(method.config):
            users.setdefault(field.name, []).append(name)
    for field, names in users.items():
        flags.DEFINE_string(
            field, None, f"Setting of {', '.join(names)}. Default: the value of the preset."
        )


def define_outside_flags(argv: Sequence[str]) -> None:
    """Defines the fields of methods of other packages that a command line names by --method(s).

    It is called before the flags are parsed, so that such fields are flags as all others are: in
    any place of the command line, with one way to write them, and stored as overrides.

    Raises:
      UserError: such a method cannot be loaded, or has a field that is another flag's name.
    """
    ours = _config_flags()
    for name in _outside_methods(argv):
        for field in dataclasses.fields(methods.get(name).config):
            if field.name in ours:
                continue
            if field.name in flags.FLAGS:
                raise UserError(
                    f"--method={name}: its field '{field.name}' is a flag of the program already; "
                    "rename the field"
                )
            flags.DEFINE_string(
                field.name, None, f"Setting of {name}. Default: the value of the preset."
            )
            ours.add(field.name)


def _outside_methods(argv: Sequence[str]) -> list[str]:
    """The names `package.module:Class` that a command line gives --method or --methods."""
    given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    found = []
    for argument, following in zip(given, [*given[1:], ""]):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") in ("method", "methods") and name.startswith("-"):
            found += (value if equals else following).split(",")
    return [name.strip() for name in found if methods.outside.is_outside(name)]


def _config_flags() -> set[str]:
    """The flags that are fields of configurations."""
    return {flag.name for flag in flags.FLAGS.flags_by_module_dict().get(__name__, ())}


def config_overrides() -> dict[str, str]:
    """The configuration fields that were given as flags, as text."""
    given = {name: flags.FLAGS[name].value for name in sorted(_config_flags())}
    return {name: value for name, value in given.items() if value is not None}
