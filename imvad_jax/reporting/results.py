"""Writes RESULTS.md from the result files."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from imvad_jax.reporting import published
from imvad_jax.reporting.brightness_table import brightness_table
from imvad_jax.reporting.metric_names import METRICS, format_value, mean_of, spread
from imvad_jax.reporting.result_files import (
    BASELINE,
    backbone_of,
    identity_key,
    is_absolute,
    load_results,
    overrides_of,
    portable_command,
    settings_text,
)
from imvad_jax.reporting.text_table import Form, format_rows, markdown_cell

COMMAND = "imvad results"
# What a row of the table is told apart by; the seeds of one row share all of it.
_IDENTITY = (
    "dataset", "category", "method", "preset", "overrides", "config", "weights", "tile", "overlap",
    "matmul_precision",
)  # fmt: skip

_HEADER = f"""# Results

Generated from the files in `results/` by `{COMMAND}`; do not edit.
`{COMMAND} --check` fails if this page and the files differ.

- Trained methods are evaluated after their last epoch; nothing is selected on test images.
- AP is the step-wise area under the precision-recall curve. PRO is exact, over 8-connected regions,
  up to a false positive rate of .3 and divided by it. Pixel metrics use the input size of the
  method.
- With several seeds, figures are mean ± standard deviation (n - 1). `-` means undefined or not
  published.
- The raw-colour baseline uses no network; a method that does not beat it has learned nothing about
  the parts.
- Seconds are wall time on the hardware named with the commands; *fit* includes compilation.
"""

_LABELS = ("method", "settings", "backbone", "pixels")
_FIGURES = tuple(metric.label for metric in METRICS)
_FIRST_NUMBER = _LABELS.index("pixels")  # from here on columns are set to the right


def render_results(results_dir: str | Path) -> str:
    """The text of RESULTS.md; equal files give equal text.

    Raises:
      UserError: as `load_results`.
    """
    results = load_results(results_dir)
    parts = [_HEADER]
    if any(result["dataset"] == published.DATASET for result in results):
        parts.append(f"**About the published rows.** {published.NOTE}\n")
    if not results:
        parts.append("No results yet.\n")
    for dataset in sorted({result["dataset"] for result in results}):
        chosen = [result for result in results if result["dataset"] == dataset]
        categories = sorted({result["category"] for result in chosen})
        parts.append(f"## {markdown_cell(dataset)}\n")
        if len(categories) > 1:
            parts.append(_overview(chosen, len(categories)))
        for category in categories:
            cells = [result for result in chosen if result["category"] == category]
            parts.append(_category(dataset, category, cells))
    return "\n".join(parts)


def _groups(results: Sequence[dict], fields: Sequence[str]) -> list[list[dict]]:
    """Results that differ in nothing but what is not in `fields`; the baseline last."""
    groups: dict[str, list[dict]] = {}
    for result in sorted(results, key=lambda result: (backbone_of(result), result["seed"])):
        groups.setdefault(identity_key(result, fields), []).append(result)

    def order(item):
        key, members = item
        first = members[0]
        return (
            first["method"] == BASELINE,
            first["method"],
            first["preset"],
            backbone_of(first),
            overrides_of(first),
            key,
        )

    return [members for _, members in sorted(groups.items(), key=order)]


def _name(result: Mapping) -> str:
    return result.get("title") or result["method"]


def _pixels(result: Mapping) -> str:
    size, crop = (result["config"].get(key) for key in ("image_size", "crop_size"))
    return f"{size} > {crop}" if crop and crop != size else str(size or "-")


def _seconds(members: Sequence[dict], stage: str) -> str:
    walls = [((m.get("timings") or {}).get(stage) or {}).get("wall_s") for m in members]
    mean, _ = mean_of(walls)
    if mean is None:
        return "-"
    return f"{mean:.1f}" if mean < 100 else f"{mean:.0f}"


def _category(dataset: str, category: str, results: Sequence[dict]) -> str:
    """The section of a category: our rows, the published ones, notes, commands."""
    groups = _groups(results, _IDENTITY)
    notes: dict[str, int] = {}  # text -> number
    rows, brightness = [], []
    for members in groups:
        first = members[0]
        marks = [
            notes.setdefault(note, len(notes) + 1)
            for note in dict.fromkeys(n for m in members for n in m.get("notes") or [])
        ]
        name = _name(first) + "".join(f" [{mark}]" for mark in marks)
        labels = [
            settings_text(first),
            published.backbone_title(backbone_of(first)),
            _pixels(first),
            str(len(members)),
        ]
        metrics = [member["metrics"] for member in members]
        brightness.append(([_name(first), *labels], metrics))
        spreads = [spread([m.get(metric.key) for m in metrics]) for metric in METRICS]
        rows.append(
            [
                name,
                *labels,
                *spreads,
                _seconds(members, "fit"),
                _seconds(members, "score"),
            ]
        )
    if dataset == published.DATASET:
        rows += _published_rows(groups, category)
    columns = (*_LABELS, "seeds", *_FIGURES, "fit s", "score s")
    table = format_rows(columns, rows, Form.COMPACT, left=_FIRST_NUMBER)
    lines = [f"### {markdown_cell(category)}\n", table]
    if said := brightness_table((*_LABELS, "seeds"), _FIRST_NUMBER, brightness):
        lines += ["", said]
    if notes:
        lines += ["", *(f"[{number}] {markdown_cell(note)}  " for note, number in notes.items())]
    return "\n".join([*lines, "", *_commands(groups), ""])


def _published_rows(groups: Sequence[Sequence[dict]], category: str) -> list[list[str]]:
    """The benchmark's row of each method, then published rows with a backbone that ours has."""
    backbones: dict[str, set[str]] = {}
    for members in groups:
        backbones.setdefault(members[0]["method"], set()).add(backbone_of(members[0]))
    titles = {members[0]["method"]: _name(members[0]) for members in groups}
    rows = []
    for method in sorted(backbones):
        for source, backbone, metrics in published.tabulate(method, category):
            from_benchmark = source == published.benchmark_source(method)
            if not from_benchmark and backbone not in backbones[method]:
                continue
            title = published.backbone_title(backbone)
            values = [format_value(metrics.get(metric.key)) for metric in METRICS]
            label = f"{titles[method]}, published: {source} ({title})"
            rows.append([label, "", title, "", "", *values, "", ""])
    return rows


def _overview(results: Sequence[dict], total: int) -> str:
    """Averages over categories; a row says over how many."""
    fields = [field for field in _IDENTITY if field != "category"]
    rows = []
    for members in _groups(results, fields):
        by_category: dict[str, list[dict]] = {}
        for member in members:
            by_category.setdefault(member["category"], []).append(member)
        values = []
        for metric in METRICS:
            means = [mean_of(m["metrics"].get(metric.key) for m in cells)[0]
                     for cells in by_category.values()]  # fmt: skip
            mean, count = mean_of(means)
            fewer = f" ({count})" if 0 < count < len(by_category) else ""
            values.append(format_value(mean) + fewer)
        first = members[0]
        rows.append(
            [
                _name(first),
                settings_text(first),
                published.backbone_title(backbone_of(first)),
                _pixels(first),
                f"{len(by_category)} of {total}",
                *values,
            ]
        )
    columns = (*_LABELS, "categories", *_FIGURES)
    text = (
        "### Averages\n\nPlain means over the categories that have a result (first over their "
        "seeds). Rows over different categories do not compare.\n\n"
    )
    return text + format_rows(columns, rows, Form.COMPACT, left=_FIRST_NUMBER) + "\n"


def _commands(groups: Sequence[Sequence[dict]]) -> list[str]:
    """How each row was made, folded away."""
    lines = ["<details><summary>How these rows were made</summary>", ""]
    for member in (member for members in groups for member in members):
        made_with = [
            f"commit {member['commit']}" if member.get("commit") else "",
            str(member.get("hardware") or ""),
            ", ".join(f"{k} {v}" for k, v in sorted((member.get("versions") or {}).items())),
            _weights(member),
        ]
        name = f"{_name(member)}, {settings_text(member)}, seed {member['seed']}"
        lines.append(
            f"- {markdown_cell(name)}: {markdown_cell('; '.join(filter(None, made_with)))}"
        )
        if member.get("command"):
            lines.append(f"  `{portable_command(member['command']).replace('`', '')}`")
    return [*lines, "", "</details>"]


def _weights(result: Mapping) -> str:
    weights = result.get("weights")
    if not weights:
        return ""
    sha = weights.get("sha256")
    source = weights["source"]
    if is_absolute(source):
        source = re.split(r"[/\\]", source)[-1]
    return f"weights {source}" + (f" (sha256 {sha[:12]})" if sha else "")
