"""The export: converts the function of a run, checks it, and keeps it if it is correct."""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imvad_jax.errors import UserError, say
from imvad_jax.export import check, to_onnx, to_savedmodel, to_stablehlo
from imvad_jax.export.whole import FORMAT, Whole
from imvad_jax.files import create_atomically, recover

FORMATS = {"stablehlo": to_stablehlo, "savedmodel": to_savedmodel, "onnx": to_onnx}
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DEFAULT_PLATFORMS = ("cpu", "cuda", "tpu")
_ENDS = 1 << 18  # bytes at the beginning and end of a file, where the metadata is
_SAVEDMODEL = re.compile(
    r"(saved_model|fingerprint|keras_metadata)\.pb|assets\.extra/metadata\.json|assets/.*"
    r"|variables/variables\.(index|data-\d+-of-\d+)"
)


def check_output(path: Path, kind: str, overwrite: bool, size: int = 0) -> None:
    """Refuses what could not be written. `size`: bytes to be expected.

    Raises:
      UserError: something is there that may not be replaced, or the disk is too full.
    """
    recover(path)  # an export that a killed process was about to replace
    if path.is_symlink() or path.exists():
        if not overwrite:
            raise UserError(f"--output={path}: is there already; add --overwrite to replace it")
        fits = _is_folder_of_ours(path) if kind == "savedmodel" else _is_file_of_ours(path)
        if not fits:
            raise UserError(
                f"--output={path}: is no earlier export of --format={kind}, or holds more; it is "
                "left as it is"
            )
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UserError(f"--output={path}: {above} is not a folder")
    free = shutil.disk_usage(above).free
    if size > free:
        raise UserError(
            f"--output={path}: needs {size / 2**30:.2f} GiB; {free / 2**30:.2f} GiB are free there"
        )


def _is_file_of_ours(path: Path) -> bool:
    """Whether the metadata of an export lies at one end of the file; an empty one is nobody's."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(_ENDS)
        file.seek(max(path.stat().st_size - _ENDS, 0))
        return not head or any(FORMAT.encode() in end for end in (head, file.read()))


def _is_folder_of_ours(path: Path) -> bool:
    """Whether a SavedModel carries the metadata of an export, and nothing else lies in it."""
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}
    metadata = path / "assets.extra" / "metadata.json"
    ours = metadata.is_file() and FORMAT.encode() in metadata.read_bytes()
    return ours and all(_SAVEDMODEL.fullmatch(name) for name in names)


def export(
    function: Whole,
    kind: str,
    path: Path,
    *,
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
      batch_size: Images per batch, 0 for any number.
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
                f"--format={kind}: {function.model.title} cannot be converted "
                f"({type(error).__name__}: {reason}){fixed}"
            ) from error
        say(f"converted in {time.perf_counter() - start:.1f} s; loading it again")
        parity.update(
            check.differences(expected, check.reloaded(kind, temporary, images, batch_size))
        )

    create_atomically(path, create)
    return parity
