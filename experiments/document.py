"""Writes docs/flags.md and docs/api.md from the programs: python -m experiments.document

With --check nothing is written; the status is 1 if a page does not fit the code.
"""

import contextlib
import dataclasses
import importlib
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

from absl import flags

import experiments
from experiments import program, settings
from imvad_jax import api, methods
from imvad_jax.errors import UserError
from imvad_jax.owned import write_own

COMMAND = "python -m experiments.document"
# The programs whose flags are documented.
PROGRAMS = ("run", "table", "predict", "export", "benchmark", "suite")
NOTICE = f"<!-- Written by `{COMMAND}`; do not edit. -->"

_OUT = program.define_path("out", "docs", "Directory to write to.")
_CHECK = flags.DEFINE_bool(
    "check", False, "Only compare the pages with the code; status 1 if they differ."
)


@contextlib.contextmanager
def _process_of_its_own() -> Iterator[None]:
    """Within it no flag is defined and no module of `experiments` is imported but `program`, which
    defines none itself and which absl knows by its identity.

    Two programs may define a flag of the same name, which one process refuses.
    """
    prefix = experiments.__name__ + "."

    def imported() -> dict:
        found = {name: module for name, module in sys.modules.items() if name.startswith(prefix)}
        return {name: module for name, module in found.items() if module is not program}

    modules = imported()
    attributes, state = dict(vars(experiments)), dict(vars(flags.FLAGS))
    for name in modules:
        del sys.modules[name]
        vars(experiments).pop(name.removeprefix(prefix), None)
    vars(flags.FLAGS).update(vars(flags.FlagValues()))
    try:
        yield
    finally:
        for name in imported():
            del sys.modules[name]
        sys.modules.update(modules)
        for old, new in ((vars(flags.FLAGS), state), (vars(experiments), attributes)):
            old.clear()
            old.update(new)


def program_flags(name: str) -> tuple[str, list[flags.Flag]]:
    """The docstring of a program and its flags, without the fields of the methods."""
    fields = {f.name for m in methods.METHODS.values() for f in dataclasses.fields(m.config)}
    with _process_of_its_own():
        module = importlib.import_module(f"{experiments.__name__}.{name}")
        found = flags.FLAGS.get_key_flags_for_module(module.__name__)
        own = flags.FLAGS.flags_by_module_dict()[module.__name__]
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
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    lines += [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines] + [""]


def flags_page() -> str:
    """docs/flags.md."""
    lines = ["# All flags", "", NOTICE, ""]
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
    comments, presets = field_comments(config), settings.presets(name)
    rows = []
    for field in dataclasses.fields(config):
        official = getattr(presets["official"], field.name)
        others = {}
        for preset, values in presets.items():
            if (value := getattr(values, field.name)) != official:
                others.setdefault(value, []).append(preset)
        differing = "; ".join(f"{', '.join(p)}: {_code(v) or 'none'}" for v, p in others.items())
        meaning = comments.get(field.name, "")
        rows.append((f"`--{field.name}`", _code(official), differing, meaning))
    return _table(("field", "official", "other presets", "meaning"), rows)


def api_page() -> str:
    """docs/api.md: the public names of `imvad_jax.api`, in the order of the source."""
    lines = ["# The Python API", "", NOTICE, "", *_markdown(api.__doc__)]
    for name, value in vars(api).items():
        if name.startswith("_") or getattr(value, "__module__", None) != api.__name__:
            continue
        lines += [f"## {name}", "", "```python", _signature(name, value), "```", ""]
        lines += _markdown(value.__doc__)
        if inspect.isclass(value):
            for key, member in vars(value).items():
                if isinstance(member, property):
                    lines += [f"- `{key}`: {' '.join(member.__doc__.split())}"]
            lines += [""]
    return "\n".join(lines)


def _signature(name: str, value) -> str:
    """A call as in the source, types without their modules."""
    signature = inspect.signature(value)
    if inspect.isclass(value):
        signature = signature.replace(return_annotation=inspect.Signature.empty)

    def short(part) -> str:
        return re.sub(r"(\w+\.)+(?=[A-Z])", "", str(part)).replace("numpy.", "np.")

    inside = "".join(f"    {short(part)},\n" for part in signature.parameters.values())
    if signature.return_annotation is inspect.Signature.empty:
        return f"{name}(\n{inside})"
    return f"{name}(\n{inside}) -> {short(inspect.formatannotation(signature.return_annotation))}"


def _markdown(doc: str) -> list[str]:
    """A docstring as Markdown: its lists of arguments and errors become bullets."""
    lines, bullets = [], False
    for line in inspect.cleandoc(doc).split("\n"):
        if line in ("Args:", "Raises:"):
            bullets = True
            lines += [{"Args:": "Arguments:", "Raises:": "Errors:"}[line], ""]
        elif bullets and (match := re.match(r"  (\w+): (.*)", line)):
            lines.append(f"- `{match[1]}`: {match[2]}")
        else:
            lines.append(line[2:] if bullets and line.startswith("    ") else line)
    return [*lines, ""]


PAGES = {"flags.md": flags_page, "api.md": api_page}


def write_pages(out: Path, check: bool) -> int:
    """Writes the pages, or compares them (`check`); returns the exit status."""
    status = 0
    for name, page in PAGES.items():
        path, text = out / name, page()
        if not check:
            write_own(path, lambda file, text=text: file.write(text.encode()))
            print(f"written: {path}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{path} does not fit the code; run: {COMMAND}", file=sys.stderr)
            status = 1
    return status


def main() -> int:
    """The program."""
    try:
        return write_pages(Path(_OUT.value), _CHECK.value)
    except OSError as error:
        raise UserError(f"--out={_OUT.value}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    program.run(main)
