"""Pages of a finished run: one report a category, one index over several."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from imvad_jax import sealed
from imvad_jax.archives import DAMAGE, names_in, read_arrays
from imvad_jax.errors import UserError
from imvad_jax.evaluation import Calibration, read_calibration
from imvad_jax.names import safe
from imvad_jax.reporting import plots, published
from imvad_jax.reporting.checked import check_audit, check_metrics, check_timings
from imvad_jax.reporting.heatmaps import picture_names
from imvad_jax.reporting.metric_names import METRICS, format_value
from imvad_jax.reporting.pages import write_page
from imvad_jax.reporting.table import Rows, average_row
from imvad_jax.training.record import FORMAT
from imvad_jax.training.record_check import check_record

MOST_CONFUSED = 6  # images of each kind in the first gallery
# Kinds of the arrays, as NumPy calls them; the maps stay on disk.
_PREDICTIONS = {"path": "U", "label": "biu", "defect": "U", "image_score": "f"}

_LEGEND_MAPS = (
    "Left: the image; the green line is the border of the true defect. Middle: the anomaly map "
    "over the image. Right: the map alone; all pictures share one colour scale."
)
_LEGEND_IMAGE_ONLY = (
    "This method scores whole images, so there are no maps. The green line is the border of the "
    "true defect."
)


def write_report(run_dir: str | Path, metrics: Mapping | None = None) -> Path:
    """Writes `report.html` into a run directory, of `metrics` or those of its metrics.json.

    The page stands alone but for links to `heatmaps/*.png`; pictures that are not there are left
    out, as is the gallery where predictions.npz was not kept.

    Returns:
      The page's path.

    Raises:
      UserError: config.json or metrics.json is missing, or one of the files is damaged.
    """
    run_dir = Path(run_dir)
    record = _read_json(run_dir / "config.json", _check_record)
    if metrics is None:
        metrics = _read_json(run_dir / "metrics.json", check_metrics)
    timings = {}
    if (run_dir / "timings.json").exists():
        timings = _read_json(run_dir / "timings.json", check_timings)
    predictions = None
    if (run_dir / "predictions.npz").exists():
        predictions = _read_predictions(run_dir / "predictions.npz")
    audit = {}
    if (run_dir / "audit.json").exists():
        audit = _read_json(run_dir / "audit.json", check_audit)
    context = {
        "audit": audit.get("lines"),
        **_settings_context(record, read_calibration(run_dir)),
        **_metrics_context(record, metrics),
        **_timings_context(timings),
        **_gallery_context(predictions, run_dir / "heatmaps"),
        "curve": _picture(run_dir / "learning_curve.png"),
    }
    return write_page(run_dir / "report.html", "report.html.j2", context)


def write_index(workdir: str | Path, rows: Rows) -> Path:
    """Writes `index.html`: category by figure, each category linked to its report.

    Args:
      workdir: Holds one run directory a category, of its name (`names.safe`).
      rows: `{category: {metric: figure or None}}`.

    Returns:
      The page's path.
    """
    workdir = Path(workdir)
    label, means = average_row(rows)
    title, notes = "Results", {}
    for category in rows:
        if (workdir / safe(category) / "config.json").exists():
            record = _read_json(workdir / safe(category) / "config.json", _check_record)
            title = f"{record.get('title') or record.get('method')} on {record.get('dataset')}"
            for note in record.get("notes") or []:
                notes.setdefault(note, []).append(category)
    context = {
        "title": title,
        "summary": f"Categories: {len(rows)}. Follow a name for its report.",
        "notes": [
            ("all categories" if len(where) == len(rows) > 1 else ", ".join(where), note)
            for note, where in notes.items()
        ],
        "metrics": METRICS,
        "rows": [
            {
                "category": category,
                "url": _link(workdir, category),
                "cells": [format_value(row.get(metric.key)) for metric in METRICS],
            }
            for category, row in rows.items()
        ],
        "average": {
            "label": label,
            "cells": [format_value(means[metric.key]) for metric in METRICS],
        },
    }
    return write_page(workdir / "index.html", "index.html.j2", context)


def _link(workdir: Path, category: str) -> str | None:
    folder = safe(category)
    exists = (workdir / folder / "report.html").exists()
    return f"{quote(folder)}/report.html" if exists else None


def _check_record(record: Mapping) -> None:
    check_record(record, FORMAT)


def _read_json(path: Path, check: Callable[[Mapping], None]) -> dict:
    try:
        value = sealed.read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; expected a finished run directory") from None
    except sealed.DamagedError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}")
    try:
        check(value)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return value


def _read_predictions(path: Path) -> dict:
    try:
        found = read_arrays(path, tuple(_PREDICTIONS))
        if len({np.shape(array) for array in found.values()}) != 1 or found["path"].ndim != 1:
            raise ValueError("arrays of different lengths")
        for name, kinds in _PREDICTIONS.items():
            if found[name].dtype.kind not in kinds:
                raise ValueError(f"{name} holds {found[name].dtype}")
        if not np.isin(found["label"], (0, 1)).all():
            raise ValueError("label holds other values than 0 and 1")
        return found | {"with_maps": "anomaly_map" in names_in(path)}
    except DAMAGE as error:
        raise UserError(
            f"{path}: not the predictions of a run, or damaged ({error}); delete it to have the "
            "report without them, or evaluate the run again"
        ) from None


def _plain(value) -> str:
    """A configuration value as a person writes it: lists and pairs without brackets."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return "-" if value is None else str(value)


def image_size(config: Mapping) -> str:
    """`256 px`, or `256 px, cropped to 224`."""
    size, crop = config.get("image_size"), config.get("crop_size")
    if size is None:
        return "-"
    return f"{size} px, cropped to {crop}" if crop and crop != size else f"{size} px"


def tiles(record: Mapping) -> str:
    """`tiles of 512 px that overlap by 64`, or nothing."""
    if not record.get("tile"):
        return ""
    return f"tiles of {record['tile']} px that overlap by {record['overlap']}"


def _settings_context(record: Mapping, calibration: Calibration | None) -> dict:
    config, weights = record.get("config") or {}, record.get("weights")
    backbone = config.get("backbone", "none")
    sha = (weights or {}).get("sha256")
    source = f"{weights['source']}{f' (sha256 {sha[:12]}…)' if sha else ''}" if weights else "none"
    trained_on = len(record.get("train_files") or [])
    settings = [
        ("method", f"{record.get('title') or record['method']} ({record['method']})"),
        ("preset", record.get("preset")),
        ("overrides", _plain(record.get("overrides") or {}) or "none"),
        ("backbone", published.backbone_title(backbone)),
        ("weights", source),
        ("image size", image_size(config)),
        ("tiles", tiles(record) or "none: images are looked at whole"),
        ("seed", record.get("seed")),
        ("fitted on", f"{trained_on} good images, named in config.json"),
        ("verdict", calibration.describe() if calibration else "no good image was held out"),
        ("versions", ", ".join(f"{k} {v}" for k, v in (record.get("versions") or {}).items())),
        ("commit", record.get("commit")),
        ("hardware", record.get("hardware")),
        ("devices", record.get("num_devices")),
    ]
    return {
        "title": record.get("title") or record["method"],
        "category": record.get("category") or "-",
        "notes": [*(record.get("notes") or []), *(calibration.notes if calibration else ())],
        "settings": [(name, _plain(value)) for name, value in settings],
        "command": record.get("command"),
        "config_fields": [(name, _plain(value)) for name, value in sorted(config.items())],
        "version": (record.get("versions") or {}).get("imvad_jax"),
        "summary": " · ".join(
            str(part)
            for part in (
                record.get("dataset"),
                f"preset {record.get('preset')}",
                f"seed {record.get('seed')}",
                image_size(config),
                tiles(record),
            )
            if part
        ),
    }


def _metrics_context(record: Mapping, metrics: Mapping) -> dict:
    method, category = record["method"], record.get("category")
    reference = {}
    if record.get("dataset") == published.DATASET:
        reference = {m.key: published.benchmark(method, category, m.key) for m in METRICS}
    has_reference = any(value is not None for value in reference.values())
    known = {metric.key for metric in METRICS}
    return {
        "metrics": [
            {
                "label": metric.label,
                "meaning": metric.meaning,
                "value": format_value(metrics.get(metric.key)),
                "published": format_value(reference.get(metric.key)) if has_reference else None,
            }
            for metric in METRICS
        ],
        "other_metrics": [
            (key, format_value(value) if isinstance(value, float) else _plain(value))
            for key, value in sorted(metrics.items())
            if key not in known
        ],
        "published_note": published.NOTE if has_reference else None,
        "published_source": published.benchmark_source(method),
        "published_backbone": published.benchmark_backbone(method),
        "published_short": published.backbone_title(published.BENCHMARK_BACKBONES.get(method, "")),
    }


def _timings_context(timings: Mapping) -> dict:
    def seconds(value):
        return "-" if value is None else f"{value:.1f}"

    rows = []
    for name, stage in timings.items():
        programs = f" ({stage['programs']} programs)" if "programs" in stage else ""
        rows.append(
            {
                "name": name + programs,
                "wall": seconds(stage.get("wall_s")),
                "waiting": seconds(stage.get("waiting_s")),
            }
        )
    return {"timings": rows}


def _gallery_context(predictions: Mapping | None, heatmaps: Path) -> dict:
    if predictions is None or not len(predictions["path"]):
        return dict.fromkeys(
            ("items", "plots", "kinds", "missed", "alarms", "groups", "legend", "with_maps")
        )
    scores, labels = predictions["image_score"], predictions["label"]
    defects, with_maps = predictions["defect"], predictions["with_maps"]
    items = _items(predictions, heatmaps)
    # Scores that are not numbers come first: nothing is worse.
    rank = np.where(np.isnan(scores), -np.inf, np.where(labels == 1, scores, -scores))
    worst_first = [items[number] for number in np.argsort(rank, kind="stable")]
    missed = [item for item in worst_first if item["defective"]]
    alarms = [item for item in worst_first if not item["defective"]]
    # Good parts last, whatever their kinds are called.
    names = list(dict.fromkeys(item["defect"] for item in sorted(
        items, key=lambda item: (not item["defective"], item["defect"]))))  # fmt: skip
    return {
        "items": items,
        "with_maps": with_maps,
        "legend": _LEGEND_MAPS if with_maps else _LEGEND_IMAGE_ONLY,
        "plots": plots.data_url(plots.figure_png(plots.score_figure(scores, labels, defects))),
        "kinds": [_kind(name, scores, labels, defects) for name in names],
        "missed": missed[:MOST_CONFUSED],
        "alarms": alarms[:MOST_CONFUSED],
        "groups": [
            {"name": name, "entries": [item for item in worst_first if item["defect"] == name]}
            for name in names
        ],
    }


def _items(predictions: Mapping, heatmaps: Path) -> list[dict]:
    """One entry a test image, in the order of the predictions."""
    scores, labels = predictions["image_score"], predictions["label"]
    good, bad = np.sort(scores[labels == 0]), np.sort(scores[labels == 1])
    items = []
    for path, name, score, label, defect in zip(
        predictions["path"], picture_names(predictions["path"]), scores, labels,
        predictions["defect"], strict=True,
    ):  # fmt: skip
        if label == 1:
            wrong = len(good) - int(np.searchsorted(good, score, "left"))
            text = f"{wrong} of {len(good)} good score as high" if wrong else ""
        else:
            wrong = int(np.searchsorted(bad, score, "right"))
            text = f"{wrong} of {len(bad)} defective score as low" if wrong else ""
        items.append(
            {
                "path": str(path),
                "defect": str(defect),
                "defective": bool(label == 1),
                "score": f"{score:.4g}",
                "wrong": text,
                "picture": _picture(heatmaps / name),
            }
        )
    return items


def _picture(path: Path) -> dict | None:
    """Relative address and size, so that the page does not jump as pictures load."""
    if not path.exists():
        return None
    with Image.open(path) as picture:  # reads the header alone
        width, height = picture.size
    return {"url": f"{path.parent.name}/{quote(path.name)}", "width": width, "height": height}


def _kind(name: str, scores: np.ndarray, labels: np.ndarray, defects: np.ndarray) -> dict:
    """A row of the table of kinds."""
    chosen = defects == name
    found, against = scores[chosen], scores[labels == 0]
    value = None
    if labels[chosen].all() and len(against) and np.isfinite(scores).all():
        both = np.concatenate([found, against])
        value = plots.auroc(both, np.arange(len(both)) < len(found))
    return {
        "name": name,
        "count": int(chosen.sum()),
        "low": f"{found.min():.4g}",
        "median": f"{np.median(found):.4g}",
        "high": f"{found.max():.4g}",
        "auroc": format_value(value),
    }
