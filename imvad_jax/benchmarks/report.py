"""Reports of the benchmark: as text, as a plot, and as a page made from stored files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imvad_jax import sealed
from imvad_jax.benchmarks import before_after
from imvad_jax.benchmarks import devices_report as devices
from imvad_jax.benchmarks import fits_report as fits
from imvad_jax.benchmarks import scaling_report as scaling
from imvad_jax.benchmarks import steps_report as steps
from imvad_jax.benchmarks.columns import label_of, number
from imvad_jax.errors import UserError
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.plots import GOOD, INK, soften
from imvad_jax.reporting.result_files import portable_command
from imvad_jax.reporting.text_table import Form, format_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMAND = "imvad benchmark --render"
BUSY = 0.1  # share of the machine that others may use before figures are not published

HEADER = f"""# Benchmarks

Generated from the files in `benchmarks/` by `{COMMAND}`; do not edit.
`{COMMAND} --check` fails if this page and the files differ.

- Each file holds the measurements of one call of `imvad benchmark` on one machine. Compare figures
  only within a file. A file that was measured while other processes used more than {BUSY:.0%} of
  the machine is refused.
- Figures are medians over repeats, after warm-up and compilation. The files also hold minimum and
  maximum.
- **compile s** is the compile time of the step, without a cache of earlier runs.
- **ms at 1** and **ms per batch** are the time from a batch in host memory to its result on the
  device, one batch at a time; a single image uses one device. **images/s** is the rate of the
  compiled step with batches in flight. **end to end** is the rate over all images, including the
  making of batches and the transfer of maps to the host.
- **GFLOP/s** counts the matrix products and convolutions of the program as written, with all
  iterations of its loops (XLA's own analysis, which counts one of them, is in the files).
  Convolutions are counted as direct ones, whatever their implementation. `>` means that a loop of
  unknown length was counted once. **of product** is the rate relative to a plain matrix product of
  the same dtype on all devices. It can exceed 100 %, because with Winograd a 3x3 convolution needs
  as little as a quarter of the counted multiplications.
- **fit s** is the whole fit after compilation; `*` means including compilation. Trained methods
  are fitted for the stated number of epochs. **peak** is the peak memory of the process on the CPU,
  otherwise of the devices.
- **Whole processes** compares our program and another one, each from start to end, alternating on
  the same files. Our **decode s** is the making of the decoded cache (cold) or its reading (warm);
  the first call has no compiled programs either. anomalib decodes while it fits and tests.
  **process s** includes everything: start, imports, output, and the validation that anomalib needs
  for its thresholds; **fit to metrics** excludes these. **peak** is the peak memory of the largest
  process of each program; anomalib's data loading workers are listed separately. Each program
  computes its own metrics.
- **Five metrics** compares ours (`imvad_jax/evaluation`) with scikit-learn's AUROC and AP and a
  plain PRO with 100 thresholds, like the published benchmark's, alternating on the same scores and
  maps in host memory. Our three pixel metrics come from one call, whose time is shown beside each
  part of theirs. **difference** is the largest difference of the figures; PRO is compared with our
  variant of 100 thresholds, **PRO (100)**, because **PRO** itself is exact.
- **Cached against recomputed features**: the inputs of the loss that training does not change (such
  as a teacher's features) are cached in host memory or computed in every step. The ratio is that of
  the times per step; caching pays off below 1.
{fits.HEADER}{steps.HEADER}{devices.HEADER}{scaling.HEADER}"""

SCORING = (
    "method", "pixels", "batch", "compile s", "ms at 1", "ms per batch", "images/s", "end to end",
    "GFLOP/s", "of product",
)  # fmt: skip
FITTING = (
    "method", "batch", "compile s", "ms per step", "images/s", "GFLOP/s", "of product", "fit s",
    "images", "epochs", "peak GiB",
)  # fmt: skip
KEPT = ("method", "cached ms", "recomputed ms", "wall ratio", "CPU ratio", "MB per image")
COMPARED = ("method", "work", "against", "ours s", "theirs s", "theirs / ours", "difference")
EVALUATED = (
    "method", "metrics of", "by", *(metric.label for metric in METRICS), "PRO (100)"
)  # fmt: skip
PROCESSES = (
    "method", "program", "decode s", "fit s", "score and metrics s", "process s", "peak GiB",
    *(metric.label for metric in METRICS),
)  # fmt: skip


def _ms(summary: dict) -> str:
    return number(1e3 * summary["median"])


def _rate(part: dict, record: dict) -> list[str]:
    more = "" if part["flops_complete"] else ">"
    share = part["flops_per_s"] / record["product"]["flops_per_s"]
    return [more + number(part["flops_per_s"] / 1e9), f"{more}{share:.1%}"]


def scoring_rows(record: dict) -> list[list[str]]:
    """Cells below SCORING: a row for each batch size but that of one image."""
    one, *larger = record["scoring"]
    config, whole = record["config"], record["end_to_end"]
    return [
        [
            label_of(record), str(config["crop_size"] or config["image_size"]),
            str(batch["batch_size"]), number(batch["compile_s"]), _ms(one["latency_s"]),
            _ms(batch["latency_s"]), number(batch["images_per_s"]),
            number(whole["images_per_s"] if whole else None), *_rate(batch, record),
        ]
        for batch in larger or [one]
    ]  # fmt: skip


def fitting_row(record: dict) -> list[str]:
    """Cells below FITTING; those of the step are empty for methods that are not trained."""
    fit, step, memory = record["fit"], record.get("training"), record["memory"]
    if step:
        cells = [str(step["batch_size"]), number(step["compile_s"]), _ms(step["step_s"]),
                 number(step["images_per_s"]), *_rate(step, record)]  # fmt: skip
    else:
        cells = ["-"] * 6
    seconds = number(fit["seconds"]["median"]) if fit["seconds"] else number(fit["first_s"]) + "*"
    return [
        label_of(record), *cells, seconds, str(fit["images"]), number(fit["epochs"], 1),
        number(memory["bytes"] / 2**30 if memory else None),
    ]  # fmt: skip


def _kept_rows(records: Sequence[dict]) -> list[list[str]]:
    return [
        [
            label_of(record), _ms(kept["kept"]["wall_s"]), _ms(kept["recomputed"]["wall_s"]),
            number(kept["wall_ratio"]), number(kept["cpu_ratio"]),
            number(kept["bytes_of_an_image"] / 1e6),
        ]
        for record in records
        if (kept := record.get("kept_features"))
    ]  # fmt: skip


def _compared_rows(records: Sequence[dict]) -> list[list[str]]:
    return [
        [
            label_of(record), part.get("work", work), part.get("against", name),
            number(part["ours_s"]["median"]),
            number(part["theirs_s"]["median"]), number(part["ratio"]),
            "-" if part["difference"] is None else f"{part['difference']:.0e}",
        ]
        for record in records
        for name, found in record.get("compare", {}).items()
        for work, part in found["parts"].items()
        if not steps.is_step(name, work)
    ]  # fmt: skip


def _evaluated_rows(records: Sequence[dict]) -> list[list[str]]:
    keys = [*(metric.key for metric in METRICS), "pixel_pro_100"]
    rows = []
    for record in records:
        for found in record.get("compare", {}).values():
            if not (metrics := found.get("metrics", found.get("figures"))):  # its older name
                continue
            of = f"{found['images']} images, {found['images_from']}"
            for side, by in (("ours", "ours"), ("theirs", "scikit-learn, PRO code")):
                values = [metrics.get(key, {}).get(side) for key in keys]
                rows.append([label_of(record), of, by, *map(format_value, values)])
    return rows


def _process_rows(records: Sequence[dict]) -> list[list[str]]:
    rows = []
    for record in records:
        for found in record.get("compare", {}).values():
            if fits.is_fit(found):  # has a table of its own
                continue
            for name, took in found.get("programs", {}).items():
                test = [took[key]["median"] for key in ("score_s", "metrics_s") if key in took]
                rows.append([
                    label_of(record), name,
                    number(took["decode_s"]["median"] if "decode_s" in took else None),
                    number(took["fit_s"]["median"]),
                    number(sum(test) if test else took["test_s"]["median"]),
                    number(took["process_s"]["median"]),
                    number(took["peak_bytes"]["median"] / 2**30),
                    *(format_value(took["metrics"][m.key]) for m in METRICS),
                ])  # fmt: skip
    return rows


def format_tables(records: Sequence[dict], markdown: bool = False) -> str:
    """The tables of what was measured together; a method that failed is named below them."""
    done = [record for record in records if "error" not in record]
    form, tables = Form.MARKDOWN if markdown else Form.TEXT, []
    for title, head, rows, left in (
        ("Scoring", SCORING, [row for record in done for row in scoring_rows(record)], 1),
        ("Fitting", FITTING, [fitting_row(record) for record in done], 1),
        ("Cached against recomputed features", KEPT, _kept_rows(done), 1),
        ("Compared", COMPARED, _compared_rows(done), 3),
        ("Training steps against PyTorch", steps.COLUMNS, steps.rows(done), 2),
        ("Metrics of both", EVALUATED, _evaluated_rows(done), 3),
        ("Whole processes", PROCESSES, _process_rows(done), 2),
        ("Whole fits", fits.COLUMNS, fits.rows(done), 2),
    ):
        if rows:
            heading = f"**{title}**\n\n" if markdown else f"{title}\n"
            tables.append(heading + format_rows(head, rows, form, left=left))
    failed = [f"{r['method']}: FAILED ({r['error']})" for r in records if "error" in r]
    if lines := [*steps.notes(done), *fits.notes(done), *failed]:
        tables.append("\n".join(f"- {line}" if markdown else line for line in lines))
    return "\n\n".join(tables)


def device_line(record: dict) -> str:
    """The machine, what a plain product reaches on it, and how busy others were."""
    product, share = record["product"], record["others_share"]
    others = "unknown" if share is None else f"{share:.0%}"
    return (
        f"{record['hardware']}; plain {product['dtype']} matrix product of {product['size']}: "
        f"{number(product['flops_per_s'] / 1e9)} GFLOP/s; used by other processes: {others}"
    )


def rate_figure(records: Sequence[dict]) -> "Figure":
    """Images per second by method, scoring and training, and the share of a plain product's rate.

    Dots are medians, whiskers go from the slowest repeat to the fastest.
    """
    # Here: it is slow to import, and many programs draw nothing.
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    done = [record for record in records if "error" not in record]
    figure = Figure(figsize=(11, 1.9 + 0.55 * len(done)), layout="constrained")
    rate, share = figure.subplots(1, 2, width_ratios=(1.5, 1), sharey=True)
    for kind, color, offset in (("scoring", GOOD, -0.19), ("training", "#d98200", 0.19)):
        for row, record in enumerate(done):
            part = record.get(kind)
            if not part:
                continue
            part = part[-1] if kind == "scoring" else part
            value, step = part["images_per_s"], part["step_s"]
            slow, fast = (value * step["median"] / step[end] for end in ("max", "min"))
            whisker = [[value - slow], [fast - value]]
            rate.errorbar(value, row + offset, xerr=whisker, fmt="o", color=color, capsize=3)
            rate.annotate(f"  {number(value)}", (fast, row + offset), va="center", color=INK,
                          fontsize=8)  # fmt: skip
            percent = 100 * part["flops_per_s"] / record["product"]["flops_per_s"]
            share.barh(row + offset, percent, 0.36, color=color)
        share.barh(0, 0, color=color, label=kind)
    rate.set(title="images per second", xscale="log", ylim=(len(done) - 0.5, -0.5))
    rate.set_yticks(range(len(done)), [label_of(record) for record in done])
    rate.margins(x=0.15)
    rate.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    rate.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    rate.xaxis.set_minor_locator(NullLocator())
    share.set(title="FLOP/s, % of a plain matrix product")
    share.set_xlim(left=0)
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, ncols=2, loc="outside lower center")
    for axes in (rate, share):
        soften(axes)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    return figure


def read_benchmark(path: str | Path) -> dict:
    """A stored file: `{command, records}`. Raises UserError if it is none."""
    try:
        found = sealed.read(path)
        found["command"]
        for record in found["records"]:
            if "error" not in record:
                format_tables([record])
                device_line(record)
        devices.format_tables(found)
        devices.lines(found)
        for record in found.get("scaling", ()):
            scaling.format_tables([record])
            scaling.machine_line(record)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not a file of imvad benchmark ({reason})") from None
    return found


def check_quiet(path: str | Path, records: Sequence[dict]) -> None:
    """Raises UserError where a method was measured on a busy machine."""
    for record in records:
        if (record.get("others_share") or 0) > BUSY:
            raise UserError(
                f"{path}: {record['method']} was measured while other processes used "
                f"{record['others_share']:.0%} of the machine; measure it again on an idle one"
            )


def render_benchmarks(directory: str | Path) -> str:
    """The text of BENCHMARKS.md; equal files give equal text. A missing directory holds none.

    Raises:
      UserError: as `read_benchmark` and `check_quiet`.
    """
    paths = sorted(Path(directory).glob("*.json"))
    parts = [HEADER]
    for path in paths:
        found = read_benchmark(path)
        scales = found.get("scaling", [])
        check_quiet(path, [*found["records"], *scales])
        done = [record for record in found["records"] if "error" not in record]
        machines = [*map(device_line, done), *map(scaling.machine_line, scales)]
        parts.append(f"## {path.stem}\n")
        parts += [f"- {line}" for line in dict.fromkeys([*machines, *devices.lines(found)])]
        figures = [*done, *scales, *found.get("agreement", ()), *found.get("loops", ())]
        commits = ", ".join(dict.fromkeys(str(r.get("commit")) for r in figures))
        made = f"commit {commits}: " if commits else ""
        parts.append(f"- {made}`{portable_command(found['command'])}`\n")
        tables = [
            format_tables(found["records"], True), *devices.format_tables(found, True),
            scaling.format_tables(scales, True),
        ]  # fmt: skip
        parts += [table + "\n" for table in tables if table]
        before = path.parent / before_after.DIRECTORY / path.name
        if before.is_file():
            parts.append(
                before_after.render_before_after(before.parent, read_benchmark(before), found)
                + "\n"
            )
        if path.with_suffix(".png").is_file():
            parts.append(f"![{path.stem}]({path.parent.name}/{path.stem}.png)\n")
    if not paths:
        parts.append("No figures yet.\n")
    return "\n".join(parts)
