"""The record of a run: configuration, versions, commit, hardware; and how it is written."""

import os
import platform
import re
import subprocess
from pathlib import Path

import jax
import numpy as np

from imvad_jax import __version__, sealed
from imvad_jax.data.category import CategoryData
from imvad_jax.marks import is_ours, is_result
from imvad_jax.model import Model
from imvad_jax.model.store import describe
from imvad_jax.ops import convolution_rule, processor
from imvad_jax.owned import write_own
from imvad_jax.reporting.result_files import FLOAT32, result_path
from imvad_jax.runs.specs import Cell
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.record_check import RANGES

_ROOT = Path(__file__).resolve().parents[2]  # of the checkout, if it is one
_NAMED = re.compile(r"^name\s*=\s*imvad_jax\s*$", re.MULTILINE)  # in setup.cfg


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
        "convolution_rule": convolution_rule.RULE,
    }


def matmul_precision(platform: str) -> str:
    """What products of float32 values are computed in: `float32`, or what JAX was told, such as
    `default` (TF32 where a GPU has it, bfloat16 on TPUs).
    """
    # Not by `config.read`, which refuses what a context may set.
    told = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    told = str(told or "default")
    return FLOAT32 if platform == "cpu" or told in ("highest", FLOAT32) else told


def small_result(result: dict) -> dict:
    """What `run_cell` returns, without its long lists of files: a result file."""
    kept = {key: value for key, value in result.items() if key not in ("train_files", RANGES)}
    kept["found"] = {key: value for key, value in kept["found"].items() if key != "not_used"}
    return kept | {"backbone": result["config"]["backbone"]}


def write_result(results_dir: str | Path, result: dict) -> None:
    """Writes the small result file of what `run_cell` returns."""
    write_json(Path(results_dir) / result_path(result), small_result(result), is_result)


def git_commit(root: Path = _ROOT) -> str | None:
    """The commit of this checkout, with `-dirty` where the program differs; None outside of one.

    Results that are written anew into the checkout are no difference of the program. A package that
    was installed into somebody's repository, or copied into it, has no commit of ours: `root` has
    to be the top of a repository that tracks the package and our setup.cfg.
    """
    known = ["imvad_jax/runs/record.py", "setup.cfg"]
    asked = (
        ["rev-parse", "--show-prefix"],  # empty at the top
        ["ls-files", "--error-unmatch", "--", *known],
        ["describe", "--always", "--exclude=*", "--abbrev=10"],
        ["diff", "--name-only", "HEAD", "--", "imvad_jax", "experiments"],
    )
    # GIT_DIR and its like, as within a hook, would name another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        if not _NAMED.search((root / "setup.cfg").read_text(encoding="utf-8")):
            return None
        below, _, commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True,
                env=environment,
            ).stdout.strip()
            for arguments in asked
        )  # fmt: skip
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    if below:
        return None
    return f"{commit}-dirty" if changes else commit


def hardware(parallel: Parallel) -> str:
    """The devices in words."""
    device, count = parallel.local[0], len(parallel.devices)
    if device.platform != "cpu":
        return f"{count} x {device.device_kind}"
    return f"{processor.title()}, {os.cpu_count()} cores, {count} JAX devices"


def write_json(path: Path, value, test=is_ours) -> None:
    """Writes JSON with its digest, atomically; NaN becomes null.

    Raises:
      UserError: a file is there and is not the program's, as `test` says.
    """
    text = sealed.dumps(sealed.plain(value))
    write_own(path, lambda file: file.write(text.encode()), test)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays atomically, uncompressed: maps of noise gain little and cost seconds."""
    write_own(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
