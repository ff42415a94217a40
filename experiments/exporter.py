"""What experiments.export does: converts the function of a run, compares it, keeps it if right."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.exports import check, to_onnx, to_savedmodel, to_stablehlo
from experiments.exports.whole import Whole
from imvad_jax.errors import UserError
from imvad_jax.files import create_atomically

FORMATS = {"stablehlo": to_stablehlo, "savedmodel": to_savedmodel, "onnx": to_onnx}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")


def check_output(path: Path, kind: str, overwrite: bool, size: int) -> None:
    """Refuses what could not be written. `size`: bytes to be expected.

    Raises:
      UserError: something is there that may not be replaced, or the disk is too full.
    """
    if path.is_symlink() or path.exists():
        if not overwrite:
            raise UserError(f"--output={path}: is there already; add --overwrite to replace it")
        fits = (path / "saved_model.pb").is_file() if kind == "savedmodel" else path.is_file()
        if not fits:
            raise UserError(f"--output={path}: is no earlier export of --format={kind}")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"--output={path}: {above} is not a folder")
    free = shutil.disk_usage(above).free
    if size > free:
        raise UserError(
            f"--output={path}: needs {size / 2**30:.2f} GiB; {free / 2**30:.2f} GiB are free there"
        )


def export(
    function: Whole,
    kind: str,
    path: Path,
    platforms: Sequence[str],
    batch_size: int,
    images: np.ndarray,
) -> dict[str, float]:
    """Writes the export and keeps it if it computes what the detector does.

    Args:
      function: From `whole.restore`.
      kind: A key of `FORMATS`.
      path: File or folder to write; what is there is replaced.
      platforms: Of `PLATFORMS`.
      batch_size: Images a batch, 0 for any number.
      images: uint8 `[N, S, S, 3]` to compare on.

    Returns:
      The largest difference of each output, relative to its largest value.

    Raises:
      UserError: the detector cannot be converted, or what came out is not the same.
    """
    expected, parity = check.live(function, images), {}

    def create(temporary: Path):
        start = time.perf_counter()
        try:
            FORMATS[kind].write(function, temporary, batch_size, platforms)
        except (UserError, OSError):
            raise
        except Exception as error:  # whatever a converter raises
            fixed = "" if batch_size else "; a fixed --batch_size=1 may do"
            reason = " ".join(str(error).split())[:400]
            raise UserError(
                f"--format={kind}: {function.record['title']} cannot be converted "
                f"({type(error).__name__}: {reason}){fixed}"
            ) from error
        print(f"converted in {time.perf_counter() - start:.1f} s; loading it again", flush=True)
        parity.update(
            check.differences(expected, check.reloaded(kind, temporary, images, batch_size))
        )

    create_atomically(path, create)
    return parity
