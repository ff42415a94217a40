"""One cell of the table: one method on one category, from good parts to its row of metrics."""

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import warnings
from pathlib import Path

import jax
import numpy as np

from experiments import memory, settings
from experiments.full_resolution import full_resolution
from imvad_jax import __version__, backbones, methods
from imvad_jax.backbones.weights import MissingTensorError, load_weights
from imvad_jax.data.category import CategoryData
from imvad_jax.errors import UserError
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.files import write_atomically
from imvad_jax.reporting import heatmaps, report
from imvad_jax.reporting.progress import tqdm_progress
from imvad_jax.training import checkpoint
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from imvad_jax.training.timing import Timings


@dataclasses.dataclass(frozen=True)
class Options:
    """What a run writes and how it evaluates; nothing here changes the detector."""

    save_predictions: bool = True
    save_heatmaps: bool = True
    full_resolution_metrics: bool = False
    benchmark_pro: bool = False


@dataclasses.dataclass
class Plan:
    """A cell resolved from flags, before anything is computed."""

    method: str
    preset: str
    overrides: dict[str, str]
    config: methods.DetectorConfig
    seed: int
    weights: str | None  # as given by flag
    command: str

    @property
    def detector(self) -> methods.Detector:
        """The unfitted detector."""
        return methods.make(self.method, self.config)


def make_record(plan: Plan, data: CategoryData, parallel: Parallel) -> dict:
    """What config.json holds."""
    return {
        "method": plan.method,
        "title": methods.get(plan.method).title,
        "preset": plan.preset,
        "overrides": plan.overrides,
        "config": dataclasses.asdict(plan.config),
        "dataset": data.dataset,
        "category": data.name,
        "seed": plan.seed,
        "weights": None,
        "notes": [],
        "versions": {
            "imvad_jax": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "commit": git_commit(),
        "hardware": hardware(parallel),
        "num_devices": parallel.count,
        "train_files": data.train_names,
        "command": plan.command,
    }


def check_images(data: CategoryData) -> None:
    """Raises UserError where the test images cannot give a metric."""
    if len(data.test) and not (data.labels == 0).any():
        raise UserError(
            f"{data.dataset}/{data.name}: no good test images; image metrics need both kinds "
            "(expected test/good/*)"
        )


def load_backbone(plan: Plan, expected_sha256: str | None) -> tuple[dict | None, dict | None, list]:
    """Pretrained variables, their record, and notes; may change `plan.config` and say so."""
    if not plan.detector.outputs:
        return None, None, []
    spec = backbones.get(plan.config.backbone)
    notes = []

    def load():
        outputs = plan.detector.outputs
        return load_weights(spec, plan.weights, outputs, plan.seed, expected_sha256)

    try:
        loaded = load()
    except MissingTensorError as error:
        fallback = plan.config.without_missing_layers()
        if fallback is None:
            raise
        changed = {
            k: v
            for k, v in dataclasses.asdict(fallback).items()
            if v != getattr(plan.config, k)
        }
        plan.config = fallback
        loaded = load()
        notes.append(f"The weights lack a layer ({error}); used instead: {changed}")
    if loaded.source == "random":
        notes.append("RANDOM BACKBONE WEIGHTS: these figures mean nothing.")
    return loaded.variables, {"source": loaded.source, "sha256": loaded.sha256}, notes


def run_cell(
    plan: Plan,
    data: CategoryData,
    run_dir: Path,
    parallel: Parallel,
    options: Options,
    timings: Timings,
    say=print,
) -> dict:
    """Fits (or restores), scores, evaluates and writes one cell; returns its record and metrics.

    A run directory that already holds the fitted detector of the same run is evaluated again
    without fitting.

    Raises:
      UserError: bad input, or the directory holds another run. Nothing is overwritten then.
    """
    check_images(data)
    stored = settings.read_record(run_dir)
    expected = ((stored or {}).get("weights") or {}).get("sha256")
    fitted = stored is not None and checkpoint.has_checkpoint(run_dir)
    if fitted and not plan.weights:  # the checkpoint holds the backbone too
        backbone, fallback = None, plan.config.without_missing_layers()
        if fallback is not None and settings.config_of(stored) == fallback:
            plan.config = fallback
        record = make_record(plan, data, parallel)
        record |= {"weights": stored["weights"], "notes": stored["notes"]}
    else:
        backbone, weights, notes = load_backbone(plan, expected)
        record = make_record(plan, data, parallel) | {"weights": weights, "notes": notes}
    if stored is not None and (different := settings.difference(stored, record)):
        raise UserError(
            f"--workdir: {run_dir} holds another run ({different}); choose another directory or "
            "delete that one"
        )
    for note in record["notes"]:
        say(f"note: {note}")
    say(memory.check(memory.estimate(plan.detector, data, parallel),
                     memory.available_bytes(parallel.devices[0])))  # fmt: skip
    run_dir.mkdir(parents=True, exist_ok=True)
    detector = plan.detector
    if fitted:
        say(f"restored the fitted detector from {run_dir}; not fitting again")
        variables = checkpoint.load_variables(run_dir)
    else:
        write_json(run_dir / "config.json", record)
        say(f"compiling {record['title']} as it is first used (kept for later runs) ...")
        with timings.stage("fit"):
            variables = init_variables(detector, backbone, plan.seed)
            variables = fit(
                detector, variables, data.train, parallel, plan.seed, tqdm_progress, timings
            )
        with timings.stage("checkpoint"):
            checkpoint.save_variables(run_dir, variables)
    if not len(data.test):
        say("no test images: the detector is fitted and stored; there is nothing to evaluate")
        write_json(run_dir / "timings.json", timings.as_dict())
        return record | {"metrics": {}, "timings": timings.as_dict()}
    return evaluate_cell(
        detector, variables, data, run_dir, parallel, options, timings, record, say
    )


def evaluate_cell(
    detector, variables, data, run_dir, parallel, options, timings, record, say
) -> dict:
    """Scores the test images with a fitted detector and writes everything a run leaves behind."""
    with timings.stage("score"):
        scores = score(
            detector, variables, data.test, parallel, progress=tqdm_progress, timings=timings
        )
    del variables
    with timings.stage("metrics"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = compute_metrics(scores, data, options)
    found = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    if data.masks is not None:
        vanished = int(((data.labels == 1) & ~data.masks.any((1, 2))).sum())
        if vanished:
            found.append(
                f"{vanished} defective images have an empty mask at {data.geometry.crop} px: they "
                "count for the image metrics only"
            )
    for note in found:
        say(f"note: {note}")
    record = record | {"notes": list(dict.fromkeys(record["notes"] + found))}
    predictions = {
        "path": np.array(data.test_names),
        "label": data.labels,
        "defect": np.array(data.test_defects),
        "image_score": scores.image,
    }
    if scores.maps is not None:
        predictions["anomaly_map"] = scores.maps
    if data.masks is not None:
        predictions["mask"] = np.packbits(data.masks)
        predictions["mask_shape"] = np.array(data.masks.shape)
    with timings.stage("write"):
        write_json(run_dir / "config.json", record)
        if options.save_predictions:
            write_npz(run_dir / "predictions.npz", predictions)
        if options.save_heatmaps:
            images = (
                image
                for batch in data.test.batches(32)
                for image in batch.images[batch.valid]
            )
            done = tqdm_progress(len(data.test), "heat maps")
            heatmaps.write_heatmaps(run_dir / "heatmaps", images, predictions, done)
    write_json(run_dir / "timings.json", timings.as_dict())
    write_json(run_dir / "metrics.json", metrics)
    if options.save_predictions:
        report.write_report(run_dir)
    return record | {"metrics": metrics, "timings": timings.as_dict()}


def compute_metrics(scores, data: CategoryData, options: Options) -> dict:
    """The row of the table: `image_auroc image_ap pixel_auroc pixel_ap pixel_pro`."""
    metrics = image_metrics(scores.image, data.labels)
    if scores.maps is None or data.masks is None:
        return metrics | dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_pro"))
    maps, masks = scores.maps, data.masks
    if options.full_resolution_metrics:
        maps, masks = full_resolution(maps, data)
    return metrics | pixel_metrics(maps, masks, benchmark_pro=options.benchmark_pro)


def write_json(path: Path, value) -> None:
    """Writes JSON atomically; NaN becomes null."""

    def clean(item):
        if isinstance(item, dict):
            return {key: clean(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [clean(entry) for entry in item]
        if isinstance(item, float | np.floating):
            return float(item) if np.isfinite(item) else None
        return item

    text = json.dumps(clean(value), indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays atomically, uncompressed: maps of noise gain little and cost seconds."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def git_commit() -> str | None:
    """The commit of this checkout, `-dirty` appended where files differ; None outside of one."""
    root = Path(__file__).resolve().parent.parent
    try:
        arguments = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware(parallel: Parallel) -> str:
    """The devices in words."""
    device = parallel.devices[0]
    if device.platform != "cpu":
        return f"{parallel.count} x {device.device_kind}"
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {parallel.count} JAX devices"
