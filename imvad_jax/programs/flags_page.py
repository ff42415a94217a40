"""docs/flags.md: the flags of the programs, and what the presets of each method set."""

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator

from absl import flags

from imvad_jax import methods, presets, programs
from imvad_jax.programs import program
from imvad_jax.reporting.text_table import Form, format_rows

# The programs whose flags are documented.
PROGRAMS = ("run", "table", "predict", "audit", "export", "benchmark", "suite")


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
    attributes, state = dict(vars(programs)), dict(vars(flags.FLAGS))
    for name in modules:
        del sys.modules[name]
        vars(programs).pop(name.removeprefix(prefix), None)
    vars(flags.FLAGS).update(vars(flags.FlagValues()))
    try:
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(modules)
        for old, new in ((vars(flags.FLAGS), state), (vars(programs), attributes)):
            old.clear()
            old.update(new)


def program_flags(name: str) -> tuple[str, list[flags.Flag]]:
    """The docstring of a program and its flags, without the fields of the methods."""
    fields = {f.name for m in methods.METHODS.values() for f in dataclasses.fields(m.config)}
    with _process_of_its_own():
        module = importlib.import_module(f"{programs.__name__}.{name}")
        found = flags.FLAGS.get_key_flags_for_module(module.__name__)
        own = flags.FLAGS.flags_by_module_dict().get(module.__name__, [])
    # A program may have a flag of its own that is called as a field of the methods.
    return module.__doc__, [flag for flag in found if flag.name not in fields or flag in own]


def field_comments(config: type) -> dict[str, str]:
    """What the comments in its source say of the fields of a configuration, by name."""
    found = {}
    for kind in reversed(config.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        above = []  # comments on lines of their own
        for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(kind)).readline):
            field = re.match(r"    (\w+): ", token.line)
            if token.type == tokenize.COMMENT:
                above.append(token.string.lstrip("# "))
            if token.type == tokenize.NEWLINE:
                if field and above:
                    found[field[1]] = " ".join(above)
                above = []
    return found


def _help(flag: flags.Flag) -> str:
    # absl appends the rest to flags that may be repeated.
    return " ".join(flag.help.split()).removesuffix(
        "; repeat this option to specify a list of values"
    )


def _text(value) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return "" if value is None else str(value)


def _code(value) -> str:
    return f"`{_text(value)}`" if _text(value) else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    # Texts of flags are Markdown already.
    return [format_rows(head, rows, Form.COMPACT, left=len(head), cell=_bars), ""]


def _bars(text: str) -> str:
    return text.replace("|", r"\|")


def flags_page(notice: str) -> str:
    """The text of the page; `notice` says who wrote it."""
    lines = ["# All flags", "", notice, ""]
    lines += [
        "Flags are written `--name=value`; a switch `--name` or `--noname`. The fields of a",
        "method's configuration are flags of `experiments.run` as well; they stand at the end, by",
        "method. `--help` prints the flags of a program.",
        "",
    ]
    for name in PROGRAMS:
        doc, found = program_flags(name)
        lines += [f"## python -m experiments.{name}", "", inspect.cleandoc(doc).split("\n")[0], ""]
        rows = [(f"`--{f.name}`", _code(f.default), _help(f)) for f in found]
        lines += _table(("flag", "default", "meaning"), rows)
    lines += ["## Fields of the methods", ""]
    lines += [
        "The preset `official` holds the values of paper and official code. Other presets differ",
        "where the third column says so. A value given by flag overrides the preset's. Several",
        "values are separated by commas; true or false is written out (`--amsgrad=true`).",
        "`--layers` and `--layer` name outputs of the backbone: `layer1` to `layer4`, from shallow",
        "to deep, and those that its file in `imvad_jax/backbones` lists.",
        "",
    ]
    for name, method in methods.METHODS.items():
        lines += [f"### {name}: {method.title}", "", *_fields(name, method.config)]
    return "\n".join(lines)


def _fields(name: str, config: type) -> list[str]:
    comments, named = field_comments(config), presets.of(name)
    rows = []
    for field in dataclasses.fields(config):
        official = getattr(named["official"], field.name)
        others = {}
        for preset, values in named.items():
            if (value := getattr(values, field.name)) != official:
                others.setdefault(value, []).append(preset)
        differing = "; ".join(f"{', '.join(p)}: {_code(v) or 'none'}" for v, p in others.items())
        meaning = comments.get(field.name, "")
        rows.append((f"`--{field.name}`", _code(official), differing, meaning))
    return _table(("field", "official", "other presets", "meaning"), rows)
