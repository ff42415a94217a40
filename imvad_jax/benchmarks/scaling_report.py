"""Cost against number of images, size of the bank and number of devices: tables and a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from imvad_jax.benchmarks.columns import label_of, number
from imvad_jax.reporting.plots import DEFECTS, GOOD, INK, soften
from imvad_jax.reporting.text_table import Form, format_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADER = """\
- **Fit against images** is the whole fit on synthetic images, of which only one batch is in memory.
  Every row is measured in its own process, and **peak** is the peak memory of that process (on an
  accelerator, of the devices). **Scoring against bank** scores a batch against a bank of synthetic
  patches. In **Scoring against devices**, CPU devices beyond the number of cores are virtual: they
  show that the work can be split, not a gain. A single CPU device also uses all cores. **of first**
  is images/s relative to the first row.
"""
TITLES = {
    "images": "Fit against images",
    "bank": "Scoring against bank",
    "devices": "Scoring against devices",
}
UNITS = {"images": "images", "bank": "patches", "devices": "devices"}
ONE = {"images": "image", "bank": "patch", "devices": "device"}
COLORS = (GOOD, *DEFECTS)


def points_of(record: dict, axis: str) -> list[dict]:
    """What was measured of an axis; points that failed are left out."""
    return [point for point in record["points"].get(axis, ()) if "error" not in point]


def measured(record: dict) -> bool:
    """Whether any point of a record was measured."""
    return any(points_of(record, axis) for axis in record["points"])


def describe(axis: str, point: dict) -> str:
    """A point in a few words."""
    count = point["value"]
    what = f"{count} {UNITS[axis] if count > 1 else ONE[axis]}"
    if "error" in point:
        return f"{what}: FAILED ({point['error']})"
    return f"{what}: {number(point['seconds'])} s, {number(point['images_per_s'])} images/s"


def peak_gib(point: dict) -> float | None:
    """The peak memory of a point."""
    return point["memory"]["bytes"] / 2**30 if point["memory"] else None


def machine_line(record: dict) -> str:
    """The machine, and how busy others were."""
    share = record["others_share"]
    others = "unknown" if share is None else f"{share:.0%}"
    return f"{record.get('hardware', 'nothing measured')}; used by other processes: {others}"


def _rows(record: dict, axis: str) -> list[list[str]]:
    found = points_of(record, axis)
    return [
        [
            label_of(record), str(point["value"]) + " virtual" * point["virtual"],
            *([str(point["devices"])] if axis != "devices" else []),
            *([str(point["batch_size"])] if axis != "images" else []),
            number(point["seconds"]), number(point["images_per_s"]),
            number(point["images_per_s"] / found[0]["images_per_s"]), number(peak_gib(point)),
        ]
        for point in found
    ]  # fmt: skip


def format_tables(records: Sequence[dict], markdown: bool = False) -> str:
    """A table an axis, a row a point; points that failed are named below.

    `of first` is the rate over that of the method's first row.
    """
    form, tables, failed = Form.MARKDOWN if markdown else Form.TEXT, [], []
    for axis, title in TITLES.items():
        rows = [row for record in records for row in _rows(record, axis)]
        head = [
            "method", UNITS[axis], *(["devices"] if axis != "devices" else []),
            *(["batch", "step s"] if axis != "images" else ["fit s"]),
            "images/s", "of first", "peak GiB",
        ]  # fmt: skip
        if rows:
            heading = f"**{title}**\n\n" if markdown else f"{title}\n"
            tables.append(heading + format_rows(head, rows, form))
        failed += [
            f"{record['method']}, {describe(axis, point)}"
            for record in records
            for point in record["points"].get(axis, ())
            if "error" in point
        ]
    if failed:
        tables.append("\n".join(f"- {line}" if markdown else line for line in failed))
    return "\n\n".join(tables)


def figure(records: Sequence[dict]) -> "Figure":
    """Seconds and peak memory of the fit by images, and rates of scoring by bank and by devices.

    Panels without a point are left out. Hollow dots are virtual devices.
    """
    # Here: it is slow to import, and many programs draw nothing.
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    panels = [
        ("images", "fit, seconds", lambda point: point["seconds"]),
        ("images", "fit, peak memory in GiB", peak_gib),
        ("bank", "scoring, images per second", lambda point: point["images_per_s"]),
        ("devices", "scoring, images per second", lambda point: point["images_per_s"]),
    ]
    panels = [panel for panel in panels if any(points_of(record, panel[0]) for record in records)]
    drawn = Figure(figsize=(1 + 3.4 * len(panels), 3.8), layout="constrained")
    labels = {}
    for axes, (axis, title, value) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels):
        ticks: set[int] = set()
        highest = 0.0
        for record, color in zip(records, COLORS * len(records)):
            found = [p for p in points_of(record, axis) if value(p) is not None]
            if not found:
                continue
            across = [point["value"] for point in found]
            ticks |= set(across)
            highest = max(highest, *map(value, found))
            (line,) = axes.plot(across, list(map(value, found)), "-o", color=color, ms=5)
            labels.setdefault(label_of(record), line)
            hollow = [p for p in found if p["virtual"]]
            axes.plot([p["value"] for p in hollow], [value(p) for p in hollow], "o",
                      color=color, mfc="white", ms=5)  # fmt: skip
        axes.set(title=title, xlabel=UNITS[axis], xscale="log")
        axes.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 1.08 * highest or 1)
        soften(axes)
        axes.grid(axis="y", alpha=0.3)
    drawn.legend(labels.values(), labels.keys(), frameon=False, labelcolor=INK, fontsize=9,
                 ncols=2, loc="outside lower center")  # fmt: skip
    return drawn
