"""A table's work directory, made up."""

import json

from imvad_jax.reporting.grid import ERROR, cell_dir
from tests.reporting.made_up import made_up_record

FIVE = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_pro")
TITLES = {"padim": "PaDiM", "patchcore": "PatchCore", "csflow": "CS-Flow",
          "raw_color": "raw colour (baseline)"}  # fmt: skip


def record_of(method, category, seed=0, preset="cpu", backbone=None, **changes):
    """A config.json."""
    backbone = backbone or ("none" if method == "raw_color" else "resnet18")
    weights = {"source": "w.safetensors", "sha256": "ab"} if backbone != "none" else None
    values = {"title": TITLES.get(method, method), "overrides": {}, "notes": [],
              "config": {"backbone": backbone, "crop_size": 0}, "weights": weights}  # fmt: skip
    return made_up_record(
        method=method, category=category, seed=seed, preset=preset, **values | changes
    )


def write_cell(root, method, category, seed=0, figures=None, error=None, seconds=2.0, **changes):
    """Writes a cell: finished with `figures` (a list of five), failed with `error`, or begun."""
    record = record_of(method, category, seed, **changes)
    top = root / cell_dir(method, category, record["preset"], seed)
    top.mkdir(parents=True)
    if error:
        (top / ERROR).write_text(json.dumps(record | {"error": error}))
        return top
    (top / "config.json").write_text(json.dumps(record))
    if figures:
        (top / "metrics.json").write_text(json.dumps(dict(zip(FIVE, figures))))
        (top / "timings.json").write_text(json.dumps({"fit": {"wall_s": seconds}}))
        (top / "report.html").write_text("<html>")
    return top
