"""Writes RESULTS.md from the small result files, one per finished run.

Their paths are `<dataset>/<category>/<method>/<preset>-<backbone>[,<override>][,tile=<px>,
overlap=<px>][,products=<precision>]-seed<k>.json`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imvad_jax import methods, names, presets, sealed
from imvad_jax.errors import UserError
from imvad_jax.methods.base import config_from_strings
from imvad_jax.reporting import published
from imvad_jax.reporting.brightness_table import brightness_table
from imvad_jax.reporting.checked import check_metrics, check_timings
from imvad_jax.reporting.metric_names import METRICS, format_value, mean_of, spread
from imvad_jax.reporting.text_table import Form, format_rows, markdown_cell
from imvad_jax.training.record import FORMAT
from imvad_jax.training.record_check import check_record

BASELINE = "raw_color"
COMMAND = "imvad results"
# What a row of the table is told apart by; the seeds of one row share all of it.
_IDENTITY = (
    "dataset", "category", "method", "preset", "overrides", "config", "weights", "tile", "overlap",
    "matmul_precision",
)  # fmt: skip
FLOAT32 = "float32"
_REQUIRED = ("dataset", "category", "method", "preset", "config", "seed", "metrics")

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


def folder_name(text: str) -> str:
    """A method, category or dataset as the name of a folder on any system."""
    return names.safe(re.sub(r"[^\w.=+-]", "_", text))


def result_path(result: Mapping) -> Path:
    """Where the file of a result lies below the results directory.

    The label is preset, backbone, other overrides and tiles:
    `benchmark-resnet18,sigma=2-seed0.json`.
    """
    overrides = (f"{k}={v}" for k, v in _overrides(result) if k != "backbone")
    parts = [f"{result['preset']}-{result['config']['backbone']}", *overrides, *_tiles(result)]
    parts += _products(result, "products=")
    label = names.safe(re.sub(r"[^\w.,=+-]", "_", ",".join(parts)), most=220)
    folders = [folder_name(result[key]) for key in ("dataset", "category", "method")]
    return Path(*folders, f"{label}-seed{result['seed']}.json")


def load_results(results_dir: str | Path) -> list[dict]:
    """All results below a directory, sorted by path.

    Raises:
      UserError: the directory is missing, or a file in it is no result; it is named.
    """
    root = Path(results_dir)
    if not root.is_dir():
        raise UserError(f"results directory {root}: not found; expected result files below it")
    results = []
    for path in sorted(root.rglob("*.json")):
        try:
            result = sealed.read(path)
        except sealed.DamagedError as error:
            raise UserError(f"{path}: {error}") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        found = result if isinstance(result, dict) else {}
        if missing := [key for key in _REQUIRED if found.get(key) is None]:
            raise UserError(f"{path}: not a result; missing: {', '.join(missing)}")
        try:
            check_record(result, FORMAT)
            for field, check in (("metrics", check_metrics), ("timings", check_timings)):
                part = result.get(field)
                if not isinstance(part, dict | None):
                    raise ValueError(f"{field} is {part!r:.40}, expected an object")
                check(part or {})
        except ValueError as error:
            raise UserError(f"{path}: not a result ({error})") from None
        results.append(methods.with_newer_fields(result))
    return results


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


def _overrides(result: Mapping) -> list[tuple[str, str]]:
    return sorted((key, str(value)) for key, value in (result.get("overrides") or {}).items())


def _tiles(result: Mapping) -> list[str]:
    names = ("tile", "overlap") if result.get("tile") else ()
    return [f"{name}={result[name]}" for name in names]


def products_of(result: Mapping) -> str:
    """What float32 products were computed in: `float32`, or what JAX was told (`default`: TF32
    where a GPU has it, bfloat16 on TPUs). Records that do not say so were made on CPUs.
    """
    return result.get("matmul_precision") or FLOAT32


def _products(result: Mapping, label: str) -> list[str]:
    found = products_of(result)
    return [] if found == FLOAT32 else [label + found]


def identity_key(result: Mapping, fields: Sequence[str]) -> str:
    """Text that is equal where two records agree in `fields`, and sortable."""
    values: dict[str, Any] = {field: result.get(field) for field in fields}
    if "config" in values:
        values["config"] = methods.decisive_fields(values["config"])
    if "matmul_precision" in values:
        values["matmul_precision"] = products_of(result)
    weights = values.get("weights")
    if weights:  # the same file under another name is the same
        values["weights"] = weights.get("sha256") or weights.get("source")
    return json.dumps(values, sort_keys=True, default=str)


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
            _overrides(first),
            key,
        )

    return [members for _, members in sorted(groups.items(), key=order)]


def backbone_of(result: Mapping) -> str:
    """The name of the backbone in a record, `none` without one."""
    return result.get("backbone") or result["config"].get("backbone") or "none"


def _name(result: Mapping) -> str:
    return result.get("title") or result["method"]


def changed_fields(result: Mapping) -> dict[str, Any]:
    """Returns the fields that differ from the preset as it is today, with the result's values."""
    if result["method"] not in methods.METHODS:  # of another package, which is not imported
        return {}
    preset = presets.of(result["method"]).get(result["preset"])
    if preset is None:
        return {"preset": result["preset"]}
    try:
        now = config_from_strings(preset, result.get("overrides") or {})
    except UserError:  # a field that is gone
        return {"overrides": "of another version"}
    fallback = now.without_missing_layers()
    newer = methods.with_newer_fields(dict(result))["config"]
    stored = json.loads(json.dumps(methods.decisive_fields(newer)))

    def differing(config: methods.DetectorConfig) -> dict[str, Any]:
        values = json.loads(json.dumps(methods.decisive_fields(dataclasses.asdict(config))))
        return {name: stored.get(name) for name, v in values.items() if stored.get(name) != v}

    return min([differing(config) for config in (now, fallback) if config], key=len)


def settings_text(result: Mapping) -> str:
    """Preset and overrides; the backbone has a column of its own, but random weights are named."""
    parts = [result["preset"]]
    parts += [f"{key}={value}" for key, value in _overrides(result) if key != "backbone"]
    parts += [f"{key}={value}" for key, value in changed_fields(result).items() if key != "preset"]
    parts += _tiles(result)
    parts += _products(result, "products at precision ")
    if ((result.get("weights") or {}).get("source")) == "random":
        parts.append("**random weights**")
    return ", ".join(parts)


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
    if _is_absolute(source):
        source = re.split(r"[/\\]", source)[-1]
    return f"weights {source}" + (f" (sha256 {sha[:12]})" if sha else "")


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "~", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]", text))


def portable_command(command: str) -> str:
    """A command without the paths of the machine that it ran on.

    Directories become `DIR` (`RUN` for `--workdir`); of a file its name is kept.
    """

    def shorten(match):
        flag, value = match.groups()
        if not _is_absolute(value):
            return match.group(0)
        last = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        keep = re.search(r"\.\w{2,12}$", last)
        return f"{flag}{last if keep else 'RUN' if flag.startswith('--workdir') else 'DIR'}"

    return re.sub(r"(--\w+[= ])(\S+)", shorten, " ".join(command.split()))
