"""What a run keeps on record: configuration, versions, commit, hardware; and how it is written."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path

import jax
import numpy as np

from imvad_jax import __version__, sealed
from imvad_jax.data.category import CategoryData
from imvad_jax.marks import is_ours, is_result
from imvad_jax.model import Model
from imvad_jax.model.store import describe
from imvad_jax.ops import convolution
from imvad_jax.owned import write_own
from imvad_jax.reporting.results import FLOAT32, result_path
from imvad_jax.runs.specs import Cell
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.record_check import RANGES


def make_record(model: Model, cell: Cell, data: CategoryData, parallel: Parallel) -> dict:
    """What config.json holds of a cell: what is known of its model, and of the run."""
    return {
        **cell.as_record(),
        **describe(model),
        "dataset": data.dataset,
        "category": data.name,
        "full_scale": data.found.reader.full_scale,  # None: no file was deeper than 8 bits
        "found": data.found.as_dict(),
        **environment(parallel),
        "marked": True,  # its pictures carry marks.MARK
        "train_files": data.train_names,
    }


def environment(parallel: Parallel) -> dict:
    """What a figure was made with: versions, commit, hardware."""
    return {
        "versions": {
            "imvad_jax": __version__,
            "jax": jax.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "commit": git_commit(),
        "hardware": hardware(parallel),
        "num_devices": len(parallel.devices),
        "matmul_precision": matmul_precision(parallel.local[0].platform),
        "convolution_rule": convolution.RULE,
    }


def matmul_precision(platform: str) -> str:
    """What products of float32 values are computed in: `float32`, or what JAX was told, such as
    `default` (TF32 where a GPU has it, bfloat16 on TPUs).
    """
    told = str(jax.config.jax_default_matmul_precision or "default")
    return FLOAT32 if platform == "cpu" or told in ("highest", FLOAT32) else told


def small_result(result: dict) -> dict:
    """What `run_cell` returns, without its long lists of files: a result file."""
    kept = {key: value for key, value in result.items() if key not in ("train_files", RANGES)}
    kept["found"] = {key: value for key, value in kept["found"].items() if key != "not_used"}
    return kept | {"backbone": result["config"]["backbone"]}


def write_result(results_dir: str | Path, result: dict) -> None:
    """Writes the small result file of what `run_cell` returns."""
    write_json(Path(results_dir) / result_path(result), small_result(result), is_result)


def git_commit() -> str | None:
    """The commit of this checkout, with `-dirty` where the program differs; None outside of one.

    Results that are written anew into the checkout are no difference of the program.
    """
    git = ["git", "-C", str(Path(__file__).resolve().parents[2])]
    describe = [*git, "describe", "--always", "--exclude=*", "--abbrev=10"]
    differing = [*git, "diff", "--name-only", "HEAD", "--", "imvad_jax", "experiments"]
    try:
        commit, changes = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in (describe, differing)
        )
        return f"{commit}-dirty" if changes else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware(parallel: Parallel) -> str:
    """The devices in words."""
    device, count = parallel.local[0], len(parallel.devices)
    if device.platform != "cpu":
        return f"{count} x {device.device_kind}"
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores, {count} JAX devices"


def write_json(path: Path, value, test=is_ours) -> None:
    """Writes JSON with its digest, atomically; NaN becomes null.

    Raises:
      UserError: a file is there and is not the program's, as `test` says.
    """

    def clean(item):
        if isinstance(item, dict):
            return {key: clean(entry) for key, entry in item.items()}
        if isinstance(item, list | tuple):
            return [clean(entry) for entry in item]
        if isinstance(item, float | np.floating):
            return float(item) if np.isfinite(item) else None
        return item

    text = sealed.dumps(clean(value))
    write_own(path, lambda file: file.write(text.encode()), test)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays atomically, uncompressed: maps of noise gain little and cost seconds."""
    write_own(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
