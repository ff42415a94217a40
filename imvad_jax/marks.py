"""Recognises files that this program wrote.

Images and pages carry `MARK`; everything else, including output of versions without the mark, is
recognised by its content.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from imvad_jax.files import is_temporary
from imvad_jax.sealed import FIELD

MARK = "generated-by: imvad_jax"  # near the beginning of a file: a comment, or a field
_HEAD = 1 << 13  # bytes
_STYLE = b"--ground: #fbfaf8; --card: #ffffff; --ink: #1d2126;"  # of pages without the mark
_PAGES = re.compile(
    rb"(Generated from the files in|Written by) .{0,80}`(python -m experiments\.|imvad )"
)
# What orbax writes into a checkpoint, and tensorstore while it writes.
_ORBAX = re.compile(
    r"(\d+/)?((default|descriptor|metrics|metadata|array_metadatas|ocdbt\.process_\d+|d)/)*"
    r"(_CHECKPOINT_METADATA|_METADATA|_sharding|_strings\.json|commit_success\.txt|checkpoint"
    r"|manifest\.ocdbt|descriptor\.pbtxt|process_\d+|[0-9a-f]{32})(\.__lock)?"
)
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder that is not complete


def is_ours(path: str | Path) -> bool:
    """Whether the program wrote what is at `path`, as its content tells."""
    path = Path(path)
    try:
        if path.is_dir():
            return FOLDERS.get(path.name, holds_result)(path)
        if not path.is_file():
            return False
        head = _head(path)
        if MARK.encode() in head or (path.suffix == ".md" and _PAGES.search(head[:500])):
            return True
        test = _FILES.get(path.name)
        return test is not None and test(path, head)
    except (OSError, ValueError, zipfile.BadZipFile, RecursionError):
        return False


def orbax_files(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The files of an orbax checkpoint, and those in its folder that are somebody else's."""
    ours, others = [], []
    for top, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        for path in (Path(top, name) for name in (*names, *links)):
            name = path.relative_to(folder).as_posix()
            fits = _ORBAX.fullmatch(re.sub(rf"{re.escape(_UNFINISHED)}[^/]*", "", name))
            (ours if fits else others).append(path)
    return ours, others


def holds_result(folder: Path) -> bool:
    """Whether a run or a benchmark of ours lies in a folder, or up to three folders below."""
    proofs = ("config.json", "error.json", "benchmark.json", "scaling.json")
    patterns = (depth + name for depth in ("", "*/", "*/*/", "*/*/*/") for name in proofs)
    return any(is_ours(path) for pattern in patterns for path in folder.glob(pattern))


def is_result(path: str | Path) -> bool:
    """Whether a file is one of the small result files of `--results_dir`."""
    try:
        value = json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return _is_record(value) and _has(value, "dataset", "category", "preset", "seed", "metrics")


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _has(value: object, *keys: str) -> bool:
    return isinstance(value, dict) and all(key in value for key in keys)


def _json(test: Callable[[object], bool]) -> Callable[[Path, bytes], bool]:
    return lambda path, head: test(json.loads(path.read_bytes()))


def _is_record(value: Any) -> bool:
    return _has(value, "method", "title", "config") and isinstance(value["config"], dict)


def _are_timings(value: object) -> bool:
    stages = [value[name] for name in value if name != FIELD] if isinstance(value, dict) else ()
    return bool(stages) and all(_has(stage, "wall_s") for stage in stages)


def _are_epochs(value: object) -> bool:
    rows = value if isinstance(value, list) else ()
    return bool(rows) and all(_has(row, "epoch", "loss") for row in rows)


def _are_predictions(path: Path, head: bytes) -> bool:
    with zipfile.ZipFile(path) as archive:
        return {"path.npy", "label.npy", "image_score.npy"} <= set(archive.namelist())


def _is_page(path: Path, head: bytes) -> bool:
    return _STYLE in head


def _is_prediction(path: Path, head: bytes) -> bool:
    # Its head alone is read: it has a line for each of perhaps very many images.
    return head.startswith(b'{"finished": ') and b'"workdir": ' in head and b'"method": ' in head


def _beside(name: str) -> Callable[[Path, bytes], bool]:
    """Of a PNG from before the mark: whether `name` beside it, which it is drawn from, is ours."""

    def test(path: Path, head: bytes) -> bool:
        earlier = not _is_marked(path.parent)
        return earlier and head.startswith(b"\x89PNG") and is_ours(path.with_name(name))

    return test


def _is_marked(directory: Path) -> bool:
    """Whether the run in a directory puts the mark into its pictures."""
    if not (directory / "config.json").is_file():
        return False
    record = json.loads((directory / "config.json").read_bytes())
    return bool(isinstance(record, dict) and record.get("marked"))


def _is_table(path: Path, head: bytes) -> bool:
    return re.match(rb"# .*\n\n\d+ of \d+ cells finished\. ", head) is not None


def _are_heatmaps(folder: Path) -> bool:
    return bool(own_heatmaps(folder)) or not any(_entries(folder))


def own_heatmaps(folder: Path) -> list[Path]:
    """The pictures of ours in a folder `heatmaps`. Those from before the mark are known by the
    record beside the folder, of a run, or the list of results, of a prediction.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        unmarked = {path for path in paths if not is_ours(path)}
        record, results = folder.parent / "config.json", folder.parent / "results.json"
        earlier = set()
        if unmarked and is_ours(record) and not _is_marked(folder.parent):
            earlier = {path.name for path in unmarked if path.suffix == ".png"}
        if unmarked and is_ours(results) and MARK.encode() not in _head(results):
            images = json.loads(results.read_bytes()).get("images", ())
            earlier |= {Path(image.get("heatmap") or "").name for image in images}
    except (OSError, ValueError, AttributeError):
        return []
    return [path for path in paths if path not in unmarked or path.name in earlier]


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "_CHECKPOINT_METADATA").is_file()


def _are_checkpoints(folder: Path) -> bool:
    """Of a training: steps that orbax wrote, and nothing of others within them."""
    entries = list(_entries(folder))
    steps = [p for p in entries if p.name.isdecimal() or _UNFINISHED in p.name]
    fits = all(step.is_dir() and not orbax_files(step)[1] for step in steps)
    return fits and (bool(steps) or not entries)


def _are_logs(folder: Path) -> bool:
    entries = list(_entries(folder))
    return not entries or any(re.fullmatch(r"(shard\w+-)?worker\d+\.log", p.name) for p in entries)


def _entries(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not is_temporary(path.name))


def _starts(*starts: bytes) -> Callable[[Path, bytes], bool]:
    return lambda path, head: head.startswith(starts)


_FILES: dict[str, Callable[[Path, bytes], bool]] = {
    "config.json": _json(_is_record),
    "error.json": _json(lambda value: _has(value, "method", "error")),
    "metrics.json": _json(lambda value: _has(value, "image_auroc")),
    "timings.json": _json(_are_timings),
    "calibration.json": _json(lambda value: _has(value, "image", "quantile", "scores")),
    "history.json": _json(_are_epochs),
    "learning_curve.png": _beside("history.json"),
    "predictions.npz": _are_predictions,
    "report.html": _is_page,
    "index.html": _is_page,
    "results.json": _is_prediction,
    "results.csv": _starts(b"\xef\xbb\xbffile,verdict,score,raw_score,"),
    "table.html": _is_page,
    "table.md": _is_table,
    "table.csv": _starts(b"method,metric,category,value,"),
    "table.json": _json(lambda value: _has(value, "categories", "rows", "cells")),
    "benchmark.json": _json(lambda value: _has(value, "command", "records")),
    "benchmark.png": _beside("benchmark.json"),
    "scaling.json": _json(lambda value: _has(value, "command", "scaling")),
    "scaling.png": _beside("scaling.json"),
}
FOLDERS: dict[str, Callable[[Path], bool]] = {
    "heatmaps": _are_heatmaps,
    "checkpoint": _is_checkpoint,
    "training": _are_checkpoints,
    "logs": _are_logs,
}
