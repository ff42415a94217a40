"""Writes scores and verdicts: results.csv, results.json, and one page."""

import base64
import dataclasses
import functools
import heapq
import io
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from imvad_jax.data.listing import NotUsed
from imvad_jax.evaluation.calibration import Calibration
from imvad_jax.marks import MARK
from imvad_jax.owned import write_own
from imvad_jax.reporting import csv_cells, pages

BINS = 50  # of the histogram on the page
_COLUMNS = ("file", "verdict", "score", "raw_score", "width", "height", "regions", "left", "top",
            "right", "bottom", "heatmap", "error")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Scored:
    """One image that was scored. Sizes and boxes in pixels of the upright picture."""

    file: str
    score: float  # 0.5 is the calibrated threshold
    raw_score: float  # as the method gives it
    width: int
    height: int
    num_regions: int | None  # None: an image-only method
    box: tuple[int, int, int, int] | None  # of the region with the highest peak
    regions: tuple[int, int] | None  # where `Spool` keeps them; None: an image-only method
    heatmap: str | None  # path of the picture, relative to the results

    def verdict(self, threshold: float) -> str:
        """`defective` if the score lies above the threshold, else `good`."""
        return "defective" if self.score > threshold else "good"

    @property
    def shown(self) -> str:
        """The score in three digits, rounded down: below 1, as it is, and above 0.5 if it is."""
        return f"{math.floor(1000 * self.score) / 1000:.3f}"


class Spool:
    """Text of any length kept in a temporary file: the outlines of many images are much."""

    def __init__(self):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the object lives

    def put(self, text: str) -> tuple[int, int]:
        """Keeps the text; returns where."""
        data = text.encode()
        start = self._file.seek(0, io.SEEK_END)
        self._file.write(data)
        return start, len(data)

    def get(self, place: tuple[int, int]) -> str:
        """The text that was put there."""
        self._file.seek(place[0])
        return self._file.read(place[1]).decode()


class Thumbnails:
    """The pictures of the worst images, as many as the page shows: memory stays bounded."""

    def __init__(self, most: int):
        self.most = most
        self._heap: list[tuple[float, int, str, tuple[bytes, ...]]] = []
        self._ties = itertools.count()

    def add(self, file: str, score: float, pictures: tuple[bytes, ...]) -> None:
        """Keeps the JPEGs of an image if it is among the worst so far."""
        if self.most:
            entry = (score, -next(self._ties), file, pictures)
            push = heapq.heappush if len(self._heap) < self.most else heapq.heappushpop
            push(self._heap, entry)

    def get(self) -> dict[str, tuple[bytes, ...]]:
        """The pictures kept, by file."""
        return {file: pictures for _, _, file, pictures in self._heap}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Everything that a prediction found out."""

    title: str  # of the method
    images: Sequence[Scored]
    spool: Spool  # the regions of the images, as JSON
    unreadable: Sequence[tuple[str, str]]  # pictures that were not scored, and why
    threshold: float  # of the verdict, on the scale where 0.5 is the calibrated one
    calibration: Calibration
    notes: Sequence[str]
    about: Mapping  # what else results.json says of the run
    not_used: Sequence[NotUsed] = ()  # files of the given folders that were not looked at
    finished: bool = True  # False: stopped before all images were scored

    @functools.cached_property
    def worst_first(self) -> list[Scored]:
        """The images by falling score."""
        return sorted(self.images, key=lambda image: (-image.score, image.file))

    @property
    def defective(self) -> int:
        """How many images are called defective."""
        return sum(image.score > self.threshold for image in self.images)


def write_csv(path: Path, found: Predictions) -> None:
    """One line per file, highest score first, unreadable files last; the box is the worst region's.

    Text that a spreadsheet would run is defused (`csv_cells`).
    """
    text = io.StringIO()
    lines = []
    for image in found.worst_first:
        line = {
            "file": image.file,
            "verdict": image.verdict(found.threshold),
            # More digits near 1: a score is never 1, and the worst can be told apart.
            "score": f"{image.score:.6f}" if image.score < 0.999 else f"{image.score:.12g}",
            "raw_score": f"{image.raw_score:.8g}",
            "width": image.width,
            "height": image.height,
            "heatmap": image.heatmap or "",
        }
        if image.num_regions is not None:
            line["regions"] = image.num_regions
        if image.box:
            line |= dict(zip(("left", "top", "right", "bottom"), image.box))
        lines.append(line)
    for file, reason in found.unreadable:
        lines.append({"file": file, "verdict": "unreadable", "error": reason})
    csv_cells.write_rows(text, _COLUMNS, lines, line_end="\r\n")
    # With a byte order mark, without which spreadsheets take UTF-8 for something else.
    content = text.getvalue().encode("utf-8-sig")
    write_own(path, lambda file: file.write(content))


def write_results_json(path: Path, found: Predictions) -> None:
    """Everything, for programs; the worst image first."""
    head = {
        "program": MARK,
        "finished": found.finished,
        **found.about,
        "notes": list(found.notes),
        "threshold": found.threshold,
        "calibration": found.calibration.as_dict(),
        "counts": {
            "defective": found.defective,
            "good": len(found.images) - found.defective,
            "unreadable": len(found.unreadable),
        },
        "unreadable": [{"file": file, "error": reason} for file, reason in found.unreadable],
        "not_used": [item.as_dict() for item in found.not_used],
    }

    def text(value) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=False)

    def write(file):
        # One image a line, each put together as it is written.
        file.write(f'{text(head)[:-1]}, "images": ['.encode())
        for number, image in enumerate(found.worst_first):
            values = {"file": image.file, "verdict": image.verdict(found.threshold)}
            values |= dataclasses.asdict(image)
            del values["regions"], values["box"]
            regions = "null" if image.regions is None else found.spool.get(image.regions)
            line = f'{text(values)[:-1]}, "regions": {regions}}}'
            file.write(f"{',' if number else ''}\n{line}".encode())
        file.write(b"\n]}\n")

    write_own(path, write)


def write_page(path: Path, found: Predictions, thumbnails: Mapping[str, tuple[bytes, ...]]) -> None:
    """One page that needs no other file: pictures inside, worst first, a slider for the threshold.

    Images without thumbnails are counted, not shown; links to larger pictures work while the page
    lies beside them.
    """
    shown = [image for image in found.worst_first if image.file in thumbnails]
    references = found.calibration.image.normalize(np.array(found.calibration.scores))
    data = {
        "scores": [image.score for image in found.worst_first],
        "references": references.tolist(),
        "threshold": found.threshold,
        "raw": dataclasses.asdict(found.calibration.image) | {"unit": found.calibration.image.unit},
    }
    context = {
        "found": found,
        "images": [
            {
                "scored": image,
                "pictures": [base64.b64encode(p).decode() for p in thumbnails[image.file]],
                "url": quote(image.heatmap) if image.heatmap else None,
            }
            for image in shown
        ],
        "hidden": len(found.images) - len(shown),
        "bins": _histogram(data["scores"], data["references"]),
        "with_maps": found.calibration.pixel is not None,
        # A name could close the script; numbers can't, but nobody should have to check that.
        "data": json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    }
    pages.write_page(path, "predictions.html.j2", context)


def _histogram(scores: Sequence[float], references: Sequence[float]) -> list[dict]:
    """Bars of the histogram in percent of the highest: of the images, and of the good ones."""
    bars = []
    for values in (scores, references):
        counts, _ = np.histogram(values, BINS, (0, 1))
        bars.append((counts, 100 * counts / max(counts.max(), 1)))
    (images, heights), (good, good_heights) = bars
    return [
        {"left": 100 * i / BINS, "count": int(images[i]), "height": round(float(heights[i]), 1),
         "good": int(good[i]), "good_height": round(float(good_heights[i]), 1)}
        for i in range(BINS) if images[i] or good[i]
    ]  # fmt: skip
