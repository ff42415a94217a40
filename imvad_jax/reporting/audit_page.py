"""The page of an audit: its lines, every number, images from both ends of the strongest one."""

import base64
import datetime
import io
from pathlib import Path

import numpy as np
from PIL import Image

from imvad_jax.audit import Audit, Comparison, files
from imvad_jax.audit.comparison import DEFECTIVE, GOOD, NEW, TRAIN, WORDS
from imvad_jax.data.decode import EVERY_DEPTH, Reader, read_image
from imvad_jax.errors import UserError
from imvad_jax.marks import MARK
from imvad_jax.owned import write_own
from imvad_jax.reporting import pages
from imvad_jax.sealed import dumps

SHOWN = 8  # images from each end
GROUPS = 12  # of copies shown
SIDE = 200  # longest side of an image, pixels
COLOURS = {TRAIN: "#7d8590", GOOD: "#1f9e89", DEFECTIVE: "#d1495b", NEW: "#3d7ea6"}
_WIDTH, _ROW = 900, 46  # of the drawing, units


def write_audit(directory: Path, found: Audit, reader: Reader = EVERY_DEPTH) -> Path:
    """Writes `index.html` and `audit.json`; returns the page's path.

    The page needs no other file. Where the files of the images are not there, or one cannot be
    read, their thumbnails stand for them.

    Raises:
      UserError: somebody else's file is there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shown = sorted(found.copies, key=lambda group: group not in found.crossing)[:GROUPS]
    context = {
        "audit": found,
        "comparisons": [_comparison(found, one, reader) for one in found.comparisons],
        "copies": [
            {"kind": group.kind, "sets": sorted({found.sets[n] for n in group.numbers}),
             "images": [_picture(found, n, reader) for n in group.numbers[:SHOWN]]}
            for group in shown
        ],
        "hidden": max(len(found.copies) - GROUPS, 0),
    }  # fmt: skip
    text = dumps({"program": MARK, **found.as_dict()})
    write_own(directory / "audit.json", lambda file: file.write(text.encode()))
    return pages.write_page(directory / "index.html", "audit.html.j2", context)


def _comparison(found: Audit, one: Comparison, reader: Reader) -> dict:
    first, second = WORDS[one.first], WORDS[one.second]
    about = {
        "title": f"{first[:1].upper()}{first[1:]} against {second}", "line": one.line,
        "warns": one.warns, "first": first, "second": second,
        "rows": [
            {"name": item.name, "auroc": f"{item.auroc:.3f}",
             "interval": f"{item.low:.2f} to {item.high:.2f}", "p": f"{item.p:.1g}",
             "first": _value(item.name, item.first), "second": _value(item.name, item.second),
             "separates": item.separates}
            for item in one.found
        ],
        "strongest": None, "ends": (), "rows_drawn": (),
    }  # fmt: skip
    strongest = one.strongest
    if strongest is None:
        return about
    values = found.facts.numbers.get(strongest.name)
    if values is None:  # of a text: an image has it or not
        return about
    sets = [name for name in WORDS if name in set(found.sets)]
    chosen = [
        number for number, name in enumerate(found.sets)
        if name in (one.first, one.second) and np.isfinite(values[number])
    ]  # fmt: skip
    order = sorted(chosen, key=lambda number: values[number])
    ends = [("lowest", order[:SHOWN]), ("highest", order[::-1][:SHOWN])]
    return about | {
        "strongest": strongest.name,
        "ends": [
            {"what": what, "images": [
                _picture(found, n, reader) | {"value": f"{values[n]:.4g}"} for n in numbers]}
            for what, numbers in ends
        ],
        **_drawing(found, values, sets),
    }  # fmt: skip


def _drawing(found: Audit, values: np.ndarray, sets: list[str]) -> dict:
    """Rows of a drawing: one per set, with a stroke per image at its value."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    scale = _WIDTH / (high - low) if high > low else 0.0
    of_set = np.array(found.sets)
    return {
        "low": f"{low:.4g}", "high": f"{high:.4g}", "width": _WIDTH, "row": _ROW,
        "rows_drawn": [
            {"name": WORDS[name], "colour": COLOURS[name], "top": _ROW * place,
             "strokes": [round((value - low) * scale, 1)
                         for value in values[of_set == name] if np.isfinite(value)]}
            for place, name in enumerate(sets)
        ],
    }  # fmt: skip


def _value(name: str, value: float) -> str:
    """A median as a person reads it."""
    if name in (files.STAMP, files.TAKEN):
        return datetime.datetime.fromtimestamp(value, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _picture(found: Audit, number: int, reader: Reader) -> dict:
    """An image of the page: its JPEG as text, its name and its set."""
    image = None
    if found.facts.paths is not None:
        try:
            image = read_image(found.facts.paths[number], reader)
        except UserError:  # the thumbnail is there
            image = None
    if image is None and found.facts.thumbnails is not None:
        image = Image.fromarray(found.facts.thumbnails[number]).resize((SIDE // 2, SIDE // 2))
    jpeg = ""
    if image is not None:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
        file = io.BytesIO()
        image.convert("RGB").save(file, "JPEG", quality=85)
        jpeg = base64.b64encode(file.getvalue()).decode()
    name = found.sets[number]
    return {"jpeg": jpeg, "name": found.facts.names[number], "set": name,
            "words": WORDS[name].removesuffix(" images"), "colour": COLOURS[name]}  # fmt: skip
