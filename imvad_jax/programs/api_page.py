"""docs/api.md: the public names of `imvad_jax` with their methods, as their docstrings say."""

import functools
import inspect
import re

from imvad_jax import api

# The headings of a docstring's parts, and what they are on the page.
_PARTS = {"Args:": "Arguments:", "Attributes:": "Attributes:", "Returns:": "Result:",
          "Raises:": "Errors:"}  # fmt: skip


def api_page(notice: str) -> str:
    """The text of the page, in the order of `api.__all__`; `notice` says who wrote it."""
    lines = ["# The Python API", "", notice, "", *_markdown(api.__doc__ or "")]
    for name in api.__all__:
        value = getattr(api, name)
        lines += [f"## {name}", "", *_entry(name, value)]
        if inspect.isclass(value):
            lines += _members(name, value)
    return "\n".join(lines)


def _entry(name: str, value) -> list[str]:
    """Signature and docstring."""
    return ["```python", _signature(name, value), "```", "", *_markdown(value.__doc__ or "")]


def _members(name: str, kind: type) -> list[str]:
    """The public properties and methods of a class, its bases' first, as in the source."""
    public = {
        key: member
        for base in reversed(kind.__mro__[:-1])
        for key, member in vars(base).items()
        if not key.startswith("_")
    }
    lines = []
    for key, member in public.items():
        if isinstance(member, property | functools.cached_property):
            said = re.split(r"\n\s*\n\s*(?:Args|Returns|Raises):", member.__doc__ or "")[0]
            lines.append(f"- `{key}`: {' '.join(said.split())}")
    lines = ["Properties:", "", *lines, ""] if lines else []
    for key, member in public.items():
        if inspect.isfunction(member):
            lines += [f"### {name}.{key}", "", *_entry(key, member)]
    return [line.replace(") -> Self", f") -> {name}") for line in lines]


def _signature(name: str, value) -> str:
    """A call as in the source, types without their modules."""
    signature = inspect.signature(value)
    if inspect.isclass(value):
        signature = signature.replace(return_annotation=inspect.Signature.empty)

    def short(part) -> str:
        text = re.sub(r"(\w+\.)+(?=[A-Z])", "", str(part)).replace("numpy.", "np.")
        return text.replace("<factory>", "{}").replace("'Model'", "Model")

    lines, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("*")
            starred = True
        lines.append(short(parameter))
    inside = "".join(f"    {line},\n" for line in lines)
    call = f"{name}(\n{inside})" if lines else f"{name}()"
    if signature.return_annotation is inspect.Signature.empty:
        return call
    return f"{call} -> {short(inspect.formatannotation(signature.return_annotation))}"


def _markdown(doc: str) -> list[str]:
    """A docstring as Markdown: its lists of arguments and errors become bullets."""
    lines, inside = [], False
    for line in inspect.cleandoc(doc).split("\n"):
        if line in _PARTS:
            inside = True
            lines += [_PARTS[line], ""]
        elif inside and (match := re.match(r"  ((?:\w+, )*\w+): (.*)", line)):
            names = ", ".join(f"`{name}`" for name in match[1].split(", "))
            lines.append(f"- {names}: {match[2]}")
        else:
            lines.append(line.removeprefix("  ") if inside else line)
    return [*lines, ""]
