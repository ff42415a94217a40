"""Every kind of file that is read back, with what reads it; and single bytes changed in them."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from imvad_jax import api
from imvad_jax.benchmarks.suite import agreement, parcel
from imvad_jax.benchmarks.suite import files as suite_files
from imvad_jax.data import category
from imvad_jax.data.decode import Geometry
from imvad_jax.data.tiled import TiledImages
from imvad_jax.data.tiles import Tiling
from imvad_jax.evaluation import read_calibration
from imvad_jax.model import store
from imvad_jax.reporting import grid, report, result_files
from imvad_jax.reporting.history import History
from imvad_jax.runs.cells import Making, RunRequest, run_cells
from imvad_jax.runs.record import write_json
from imvad_jax.runs.specs import Options
from imvad_jax.training.checkpoint import TrainingCheckpoints, load_variables
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.record import read_record
from tests.data.trees import mvtec_tree
from tests.methods.small import images

STATE = {"params": np.arange(3000, dtype=np.float32), "step": np.int32(0)}
TILING = Tiling(16, 4)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Files of one kind."""

    place: Path  # a file, or a folder whose files are meant; of a training, below `read`'s folder
    top: Path  # what is copied before a byte is changed
    read: Callable[[Path], object]  # given the copy of `top`; what it gives is compared


def make(top: Path) -> dict[str, Kind]:
    """All kinds, written below `top`."""
    data, run = mvtec_tree(top / "data"), top / "table/raw_color/bottle-smoke/bottle-seed0"
    request = RunRequest(
        method="raw_color", preset="smoke", dataset="mvtec_ad", categories=["bottle"], workdir=run,
        data_dir=str(data), decoded_dir=str(top / "cache"), holdout=0.3,
        options=Options(save_heatmaps=False),
    )  # fmt: skip
    run_cells(run, request.cells, Making(parallel=Parallel(jax.local_devices()[:1]), log=len))
    small = {"dataset": "mvtec_ad", "category": "bottle", "method": "raw_color", "preset": "smoke",
             "config": {"backbone": "none"}, "seed": 0,
             "metrics": {"image_auroc": 0.625}}  # fmt: skip
    write_json(top / "results/one.json", small)
    write_json(top / "table/raw_color/bottle-smoke/nut-seed0/error.json", {
        **small, "title": "raw colour", "overrides": {}, "error": "it is dark", "category": "nut",
    })  # fmt: skip
    model = api.fit(api.make("raw_color", image_size=64, grid_size=16), images(8).images)
    api.save(model, top / "model")
    with History(top / "history", 8) as history:
        for epoch in (1, 2, 3):
            history.record(epoch, {"loss": 0.7 / epoch})
    with_steps = TrainingCheckpoints(top / "trained")
    for epoch in (1, 2):
        with_steps.save(epoch, STATE | {"step": np.int32(epoch)})
    with_steps.close()
    (cache,) = (top / "cache").glob("*.npz")
    opened = category.open_category(
        "mvtec_ad", str(data), "bottle", Geometry(16, 16), None, progress=_progress
    )
    packed = parcel.pack(top / "parcels", [opened], "0" * 12)
    (top / "tiles").mkdir()
    _keep(top / "tiles", data)
    suite_files.write_json(top / "suite/suite.json", {"command": "x", "records": [1, 2.5]})
    cell = run.relative_to(top / "table").as_posix()
    failed = "raw_color/bottle-smoke/nut-seed0"
    return {
        "saved record": Kind(top / "model/config.json", top / "model", store.read),
        "saved variables": Kind(top / "model/checkpoint", top / "model", load_variables),
        "run's record": Kind(run / "config.json", run, read_record),
        "run's variables": Kind(run / "checkpoint", run, load_variables),
        "run's calibration": Kind(run / "calibration.json", run, read_calibration),
        "run's predictions": Kind(
            run / "predictions.npz", run,
            lambda path: [report._read_predictions(path / "predictions.npz"),
                          agreement._read(path)],
        ),
        "table: metrics": Kind(run / "metrics.json", top / "table",
                               lambda path: grid.read_cell(path, cell)),
        "table: timings": Kind(run / "timings.json", top / "table",
                               lambda path: grid.read_cell(path, cell)),
        "table: error": Kind(top / "table" / failed / "error.json", top / "table",
                             lambda path: grid.read_cell(path, failed)),
        "result": Kind(top / "results/one.json", top / "results", result_files.load_results),
        "training's course": Kind(top / "history/history.json", top / "history",
                                  lambda path: History(path, 8).rows),
        "training's checkpoint": Kind(top / "trained/training/2", top / "trained", _resume),
        "decoded cache": Kind(
            cache, top / "cache",
            lambda path: category._load_cache(path / cache.name, Geometry(16, 16), None),
        ),
        "kept tiles": Kind(top / "tiles/kept.raw", top / "tiles",
                           lambda path: _keep(path, data).kept),
        "parcel": Kind(packed, top / "parcels", lambda path: parcel._load(path / packed.name)),
        "suite": Kind(top / "suite/suite.json", top / "suite",
                      lambda path: suite_files.read_json(path / "suite.json")),
    }  # fmt: skip


def changed(kind: Kind, copy: Path, random: np.random.Generator) -> Path:
    """Copies `kind.top` to `copy` and changes a byte in one of the files; returns which."""
    shutil.copytree(kind.top, copy)
    place = copy / kind.place.relative_to(kind.top)
    paths = [place]
    if place.is_dir():
        paths = sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    sizes = np.array([path.stat().st_size for path in paths])
    path = paths[random.choice(len(paths), p=sizes / sizes.sum())]  # any byte is as likely
    content = bytearray(path.read_bytes())
    content[random.integers(len(content))] ^= int(random.integers(1, 256))
    path.write_bytes(content)
    return path


def same(one: object, other: object) -> bool:
    """Whether two loaded things are equal in every bit."""
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        one, other = vars(one), vars(other)
    if hasattr(one, "images") and hasattr(one, "reader"):  # a source of images
        one, other = one.images, other.images
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    return type(one) is type(other) and one == other


def _resume(path: Path):
    told = []
    checkpoints = TrainingCheckpoints(path, log=told.append)
    try:
        return checkpoints.resume(STATE)
    finally:
        checkpoints.close()


def _keep(path: Path, data: Path) -> TiledImages:
    paths = sorted(str(path) for path in (data / "bottle/train/good").glob("*"))
    tiles = TiledImages.of_files(paths, TILING, Geometry(16, 16))
    return tiles.keep(path / "kept.raw", lambda batches, total: batches)


def _progress(batches, total, label):
    return batches
