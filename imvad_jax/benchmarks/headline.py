"""The table of README.md and docs/index.md: what each method reached, and its speed beside others.

Quality is that of `presets/reached.json`, which is written with RESULTS.md; speed is that of the
files of BENCHMARKS.md. Only figures of processors are taken: those of other devices stand there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from imvad_jax import methods, presets
from imvad_jax.benchmarks import steps_report as steps
from imvad_jax.benchmarks.columns import number
from imvad_jax.benchmarks.report import check_quiet, read_benchmark
from imvad_jax.errors import UserError
from imvad_jax.reporting import published
from imvad_jax.reporting.metric_names import METRICS, format_value, is_missing
from imvad_jax.reporting.text_table import Form, format_rows

BEGIN, END = "<!-- headline: python -m experiments.document -->", "<!-- end of headline -->"
CATEGORIES = ("bottle", "screw")
# The column of a metric, and the metric.
FIGURES = {"image AUROC": "image_auroc", "PRO": "pixel_pro", "pixel AP": "pixel_ap"}
COLUMNS = (
    "method", *(f"{category} {label}" for category in CATEGORIES for label in FIGURES),
    "s, against PyTorch", "s, against anomalib",
)  # fmt: skip
# Of these parts of a comparison the first one that was measured is shown.
PYTORCH_FIT = ("fit",)
ANOMALIB = ("a step after the first epoch", "fit to metrics, warm")

SHORT = 0.01  # a larger distance below the published figure is explained
# What explains it beside the settings in which the preset differs from the published one.
ALSO = {
    "draem": "narrower networks; takes the light of screw for a defect",
    "padim": "channels drawn at random",
    "spade": "weights without the layer of its image score",
}

NOTE = """\
MVTec AD, preset `cpu`, means over seeds; in small the distance to the published figure (`*`: of
another network; its code gives a PRO .003 to .010 lower). Seconds are ours, in brackets how
many times as long the other takes: a training step; of PaDiM and PatchCore the fit (PyTorch), or
fit to metrics (anomalib). On {machines}. Seeds, networks, commands:
[RESULTS.md]({root}RESULTS.md), [BENCHMARKS.md]({root}BENCHMARKS.md)."""


def preset_reached(method: str) -> list[dict]:
    """The rows without overrides of the preset `cpu`, or of one with the same values.

    What was measured before the preset was changed is none of its figures.
    """
    named = presets.of(method)
    same = [name for name, config in named.items() if config == named["cpu"]]
    for name in sorted(same, key=lambda name: name != "cpu"):
        rows = [
            row
            for row in presets.reached(method, name)
            if not row["overrides"]
            and not row["changed_since"]
            and row["dataset"] == published.DATASET
        ]
        if rows:
            return rows
    return []


def _distance(method: str, category: str, metric: str, value: float | None) -> float | None:
    """From the published figure, three decimals; None where either is missing."""
    theirs = published.benchmark(method, category, metric)
    if value is None or is_missing(value) or theirs is None:
        return None
    return round(value - theirs, 3)


def _figure(method: str, row: Mapping | None, category: str, metric: str) -> str:
    value = row["metrics"][metric] if row else None
    text, distance = format_value(value), _distance(method, category, metric, value)
    if distance is None:
        return text
    difference = f"{distance:+.3f}".replace("0.", ".", 1)
    return f"{text}<sub>{'±0' if difference in ('+.000', '-.000') else difference}</sub>"


def _distances(method: str, rows: Sequence[Mapping]) -> list[float]:
    """Of all metrics of the rows that have a published counterpart, shown in the table or not."""
    found = [
        _distance(method, row["category"], metric.key, row["metrics"].get(metric.key))
        for row in rows
        for metric in METRICS
    ]
    return [distance for distance in found if distance is not None]


def _is_short(distances: Sequence[float]) -> bool:
    """Whether a figure is below the published one by more than `SHORT`."""
    return any(-distance > SHORT for distance in distances)


def _why(method: str) -> str:
    """In what the preset falls short of the published settings."""
    named = presets.of(method)
    ours, theirs = named["cpu"], named["benchmark"]
    reasons = []
    if ours.backbone != theirs.backbone:
        titles = [published.backbone_title(config.backbone) for config in (ours, theirs)]
        reasons.append("{} for {}".format(*titles))
    if ours.image_size < theirs.image_size:
        reasons.append(f"{ours.image_size}/{theirs.image_size} pixels")
    epochs = [getattr(config, "epochs", 0) for config in (ours, theirs)]
    if epochs[0] < epochs[1]:
        reasons.append("{}/{} epochs".format(*epochs))
    if method in ALSO:
        reasons.append(ALSO[method])
    return ", ".join(reasons)


def _records(directory: Path) -> Iterator[dict]:
    """What was measured on quiet processors, in the order of the files."""
    for path in sorted(directory.glob("*.json")):
        found = read_benchmark(path)["records"]
        check_quiet(path, found)
        yield from (r for r in found if "error" not in r and r.get("platform", "cpu") == "cpu")


def _against_pytorch(record: Mapping) -> list[Mapping]:
    """The parts of a training step, else of a fit, beside PyTorch: eager, and compiled."""
    compared = record.get("compare", {})
    parts = compared.get(steps.COMPARISON, {}).get("parts", {})
    # As the preset computes: with kept features where it keeps them.
    kept = steps.KEPT if record["config"].get("cache_features") else steps.STEP
    for work in dict.fromkeys((kept, steps.STEP)):
        if found := [parts[key] for key in (work, work + steps.COMPILED) if key in parts]:
            return found
    parts = compared.get("torch", {}).get("parts", {})
    return [parts[key] for key in PYTORCH_FIT if key in parts]


def _against_anomalib(record: Mapping) -> list[Mapping]:
    parts = record.get("compare", {}).get("anomalib", {}).get("parts", {})
    return [parts[key] for key in ANOMALIB if key in parts][:1]


def _speed(parts: Sequence[Mapping], record: Mapping) -> str:
    """Our seconds, the ratio to the fastest of the others; preset and pixels if not usual."""
    ours = parts[0]["ours_s"]["median"]
    ratio = min(part["theirs_s"]["median"] for part in parts) / ours
    said, size = [f"{ratio:.1f}x"], record["config"]["image_size"]
    if record["preset"] != "cpu":
        said.append(f"`{record['preset']}`")
    if size != presets.of(record["method"])["cpu"].image_size:
        said.append(f"{size} px")
    return f"{number(ours, 2)} ({', '.join(said)})"


def _machines(hardware: Iterable[str]) -> str:
    """Each machine once, those of as many cores together: `A, B (2 cores); C (8 cores)`."""
    found: dict[str, list[str]] = {}
    for machine in dict.fromkeys(re.sub(r", \d+ JAX devices$", "", each) for each in hardware):
        cores = re.search(r", (\d+ cores)$", machine)
        name = machine[: cores.start()] if cores else machine
        found.setdefault(f" ({cores[1]})" if cores else "", []).append(name)
    return "; ".join(", ".join(names) + cores for cores, names in found.items())


def table(benchmarks_dir: str | Path, root: str) -> str:
    """The table and the note below it; equal files give equal text.

    Args:
      benchmarks_dir: The directory of the files of BENCHMARKS.md.
      root: What leads from the page to the repository's root: empty, or `../`.

    Raises:
      UserError: a file of the directory is no benchmark, or was measured on a busy machine.
    """
    speeds: dict[str, dict[str, str]] = {"pytorch": {}, "anomalib": {}}
    machines: dict[tuple[str, str], str] = {}
    for record in _records(Path(benchmarks_dir)):  # of several records of a method the last counts
        for other, find in (("pytorch", _against_pytorch), ("anomalib", _against_anomalib)):
            if parts := find(record):
                speeds[other][record["method"]] = _speed(parts, record)
                machines[other, record["method"]] = record["hardware"]
    rows, short = [], []
    distances: list[float] = []
    for name, method in methods.METHODS.items():
        reached = {row["category"]: row for row in preset_reached(name)}
        own = _distances(name, [reached[key] for key in CATEGORIES if key in reached])
        distances += own
        if _is_short(own):
            short.append(f"{method.title} ({_why(name)})")
        ours = presets.of(name)["cpu"].backbone
        same = published.BENCHMARK_BACKBONES.get(name, ours) == ours
        figures = [
            _figure(name, reached.get(category), category, metric)
            for category in CATEGORIES
            for metric in FIGURES.values()
        ]
        rows.append(
            [method.title + ("" if same else "*"), *figures]
            + [speeds[other].get(name, "-") for other in speeds]
        )
    # The cells are Markdown already.
    text = format_rows(COLUMNS, rows, Form.COMPACT, cell=str)
    note = NOTE.format(machines=_machines(machines.values()) or "no machine", root=root)
    if distances:
        equalled, near = (sum(d >= -least for d in distances) for least in (0, SHORT))
        note += (
            f"\n\nOf {len(distances)} published figures {equalled} are reached, "
            f"{near} within {SHORT}."
        )
    if short:
        note += f" Further below: {'; '.join(short)}."
    return f"{text}\n\n{note}"


def filled(page: str, benchmarks_dir: str | Path, root: str, name: str) -> str:
    """The text of a page with the table between its marks.

    Raises:
      UserError: the page, called `name`, lacks the marks; and as `table`.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"{name}: expected one line {BEGIN}, and {END} below it")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table(benchmarks_dir, root)}\n{END}{after}"
