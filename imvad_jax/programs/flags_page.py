"""docs/flags.md: the flags of the programs, and what the presets of each method set."""

import dataclasses
import inspect
import io
import re
import tokenize

from absl import flags

from imvad_jax import methods, presets
from imvad_jax.programs import registry
from imvad_jax.programs.apart import program_flags
from imvad_jax.reporting.text_table import Form, format_rows

# The programs whose flags are documented.
PROGRAMS = tuple(registry.PROGRAMS)


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
        "Write a flag as `--name=value`, and a Boolean flag as `--name` or `--noname`. Every field",
        "of a method's configuration is also a flag of `imvad run`, `imvad table` and",
        "`imvad benchmark`; these are listed by method [below](#settings-of-the-methods).",
        "`imvad COMMAND --help` prints the main flags of a command, and `--helpfull` all of them.",
        "In a checkout, `python -m experiments.COMMAND` runs the same command.",
        "",
    ]
    for name in PROGRAMS:
        doc, found = program_flags(name)
        lines += [f"## imvad {name}", "", inspect.cleandoc(doc).split("\n")[0], ""]
        rows = [(f"`--{f.name}`", _code(f.default), _help(f)) for f in found]
        lines += _table(("flag", "default", "meaning"), rows)
        if name == "fit":
            lines += ["`imvad fit` also takes the flags of `imvad run`.", ""]
    lines += ["## Settings of the methods", ""]
    lines += [
        "The preset `official` holds the values of the paper or the authors' code; the third",
        "column lists the presets that differ. A flag overrides the value of the preset. Separate",
        "the values of a list by commas, and write Booleans out (`--amsgrad=true`). `--layers` and",
        "`--layer` name outputs of the backbone: `layer1` to `layer4`, from shallow to deep, or",
        "any other output that its file in `imvad_jax/backbones` lists.",
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
