"""docs/methods: a page for each method, from its docstring, its presets and what they reached."""

import inspect
import re
import sys
import textwrap

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.programs import method_tables
from imvad_jax.programs.method_pictures import PICTURES
from imvad_jax.reporting.result_files import BASELINE
from imvad_jax.reporting.text_table import Form, format_rows

# What a method's docstring says below its title and its source, each with a heading on the page.
SECTIONS = {
    "What it learns": "What it learns",
    "When to use it": "When to use it",
    "When not": "When not to use it",
}
INDEX = "methods/index.md"


def pages() -> dict:
    """The pages by their path below docs, each as a function of the notice who wrote it."""
    found = {INDEX: index_page}
    for name in methods.METHODS:
        found[f"methods/{name}.md"] = lambda notice, name=name: method_page(name, notice)
    return found


def describe(name: str) -> dict[str, str]:
    """What the docstring of a method's module says: `summary`, `source`, and the SECTIONS.

    Raises:
      UserError: the docstring lacks a part.
    """
    doc = inspect.cleandoc(sys.modules[methods.get(name).detector.__module__].__doc__ or "")
    summary, source, *rest = (" ".join(part.split()) for part in doc.split("\n\n"))
    found = {"summary": summary.split(": ", 1)[-1], "source": source}
    for part in rest:
        label, _, text = part.partition(": ")
        if label in SECTIONS:
            found[label] = text
    if missing := [label for label in SECTIONS if label not in found]:
        raise UserError(f"the docstring of {name}: has no paragraph '{missing[0]}: ...'")
    return found


def anchor(heading: str) -> str:
    """What a heading is called in a link, on the site and where the repository is shown."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def method_page(name: str, notice: str) -> str:
    """The text of the page of a method; `notice` says who wrote it."""
    said, title = describe(name), methods.get(name).title
    lines = [f"# {_sentence(title)}", "", notice, "", *_wrapped(_sentence(said["summary"])), ""]
    paper = "Paper: " if name != BASELINE else ""
    lines += [*_wrapped(f"{paper}{said['source']}"), ""]
    if picture := PICTURES.get(name):
        alt = f"Heat map of {title} on a drawn {picture.category}"
        lines += [f"![{alt}](../images/methods/{name}.jpg)", "", *_wrapped(picture.caption), ""]
        lines += ["```", *picture.command(name), "```", ""]
    for label, heading in SECTIONS.items():
        lines += [f"## {heading}", "", *_wrapped(said[label]), ""]
    lines += ["## Presets", "", method_tables.presets_table(name), ""]
    lines += ["## What it reached", "", *_wrapped(method_tables.REACHED), ""]
    lines += [method_tables.reached_table(name), ""]
    lines += ["## More", ""]
    section = anchor(f"{name}: {title}")
    lines.append(f"- [All its settings](../flags.md#{section}), with what each preset sets")
    if name != BASELINE:
        where = f"../fidelity.md#{anchor(title)}"
        lines.append(f"- [How it was compared with the reference code]({where})")
    lines.append("- [RESULTS.md](../../RESULTS.md) and [BENCHMARKS.md](../../BENCHMARKS.md): all")
    lines.append("  figures, with commands, commits and hardware")
    lines.append(f"- The source: `imvad_jax/methods/{name}.py`, `imvad_jax/presets/{name}.py`")
    return "\n".join([*lines, ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def index_page(notice: str) -> str:
    """The text of the page that leads to all methods."""
    rows = []
    for name, method in methods.METHODS.items():
        trained = "gradient" in method.detector.phases
        picked = "trains" if trained else "one pass"
        rows.append([f"[{method.title}]({name}.md)", describe(name)["summary"], picked])
    head = ("method", "what it is", "fit")
    return "\n".join(
        [
            "# The methods",
            "",
            notice,
            "",
            *_wrapped(
                "PatchCore and PaDiM fit in one pass over the good images and are the place to "
                "start. The others are for comparison, for parts on which these two fail, or for "
                "a time per image that does not grow with the number of good images. The name of "
                "a method on the command line is that of its page: `--method=patchcore`."
            ),
            "",
            format_rows(head, rows, Form.COMPACT, left=len(head), cell=str),
            "",
            *_wrapped(
                "What each reached and how fast it is stands on the [first page](../index.md), "
                "with all figures in [RESULTS.md](../../RESULTS.md). A method of your own needs "
                "one file: [extending.md](../extending.md)."
            ),
            "",
        ]
    )
