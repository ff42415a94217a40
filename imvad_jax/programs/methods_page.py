"""docs/methods: a page for each method, from its docstring, its presets and what they reached."""

import inspect
import re
import sys
import textwrap

from imvad_jax import methods, presets
from imvad_jax.errors import UserError
from imvad_jax.programs.method_pictures import PICTURES
from imvad_jax.reporting import published
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.text_table import Form, format_rows

# What a method's docstring says below its title and its source, each with a heading on the page.
SECTIONS = {
    "What it learns": "What it learns",
    "When to use it": "When to use it",
    "When not": "When not to use it",
}
# What each preset is for; those that only one method has are said there.
MEANT_FOR = {
    "official": "the values of paper and official code",
    "benchmark": "the variant behind the published table",
    "cpu": "two cores in minutes",
    "demo": "`imvad demo` and the drawn parts",
    "smoke": "tests",
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
    doc = inspect.cleandoc(sys.modules[methods.get(name).detector.__module__].__doc__)
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
    paper = "Paper: " if methods.get(name).in_benchmark else ""
    lines += [*_wrapped(f"{paper}{said['source']}"), ""]
    if picture := PICTURES.get(name):
        alt = f"Heat map of {title} on a drawn {picture.category}"
        lines += [f"![{alt}](../images/methods/{name}.jpg)", "", *_wrapped(picture.caption), ""]
        lines += ["```", *picture.command(name), "```", ""]
    for label, heading in SECTIONS.items():
        lines += [f"## {heading}", "", *_wrapped(said[label]), ""]
    lines += ["## Presets", "", *_presets(name), "## What it reached", "", *_reached(name)]
    lines += ["## More", ""]
    section = anchor(f"{name}: {title}")
    lines.append(f"- [All its settings](../flags.md#{section}), with what each preset sets")
    if methods.get(name).in_benchmark:
        where = f"../fidelity.md#{anchor(title)}"
        lines.append(f"- [How it was compared with the reference code]({where})")
    lines.append("- [RESULTS.md](../../RESULTS.md) and [BENCHMARKS.md](../../BENCHMARKS.md): all")
    lines.append("  figures, with commands, commits and hardware")
    lines.append(f"- The source: `imvad_jax/methods/{name}.py`, `imvad_jax/presets/{name}.py`")
    return "\n".join([*lines, ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def _presets(name: str) -> list[str]:
    """The table of the presets; what was not measured has no figures below it."""
    rows = []
    for preset, config in presets.of(name).items():
        size, crop = config.image_size, config.crop_size
        rows.append(
            [
                f"`{preset}`",
                MEANT_FOR.get(preset, "see its file"),
                published.backbone_title(config.backbone),
                f"{size} > {crop}" if crop and crop != size else str(size),
                str(getattr(config, "epochs", "-")),
            ]
        )
    head = ("preset", "meant for", "backbone", "pixels", "epochs")
    return [format_rows(head, rows, Form.COMPACT, left=3, cell=str), ""]


def _reached(name: str) -> list[str]:
    """The figures of each preset that was measured, and the published ones beside them."""
    rows, categories = [], {}
    for preset in presets.of(name):
        for row in presets.reached(name, preset):
            settings = [f"`{preset}`", *(f"{k}={v}" for k, v in sorted(row["overrides"].items()))]
            settings += [f"before a change of {field}" for field in row["changed_since"]]
            where = f"{row['dataset']} {row['category']}"
            figures = [format_value(row["metrics"][metric.key]) for metric in METRICS]
            rows.append([", ".join(settings), where, str(len(row["seeds"])), *figures])
            if row["dataset"] == published.DATASET:
                categories[row["category"]] = None
    for category in categories:
        values = [published.benchmark(name, category, metric.key) for metric in METRICS]
        if any(value is not None for value in values):
            title = published.backbone_title(published.BENCHMARK_BACKBONES[name])
            label = f"published ({title})"
            where = f"{published.DATASET} {category}"
            rows.append([label, where, "", *map(format_value, values)])
    head = ("preset", "category", "seeds", *(metric.label for metric in METRICS))
    text = (
        "Means over seeds, after the last epoch. A preset without a row was not measured on real "
        "data here. `published`: the benchmark's table, for the eight methods whose columns it "
        "mixes up relabelled (RESULTS.md); its PRO is .003 to .010 lower by its code."
    )
    return [*_wrapped(text), "", format_rows(head, rows, Form.COMPACT, left=2, cell=str), ""]


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
