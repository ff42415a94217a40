"""Writes the data directory for a device: one parcel per category, and the weights."""

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from imvad_jax.benchmarks.suite import parcel, plan
from imvad_jax.benchmarks.suite.files import read_json, write_json
from imvad_jax.benchmarks.suite.suite import check_weights
from imvad_jax.data import layouts
from imvad_jax.data.category import open_category
from imvad_jax.data.decoded_cache import fingerprint
from imvad_jax.data.reading import AS_IS
from imvad_jax.errors import UserError
from imvad_jax.owned import PARCEL, check_directory, write_own

LIST = "parcel.json"  # what was packed, by name: its sha256
MOST_BYTES = 64 * 2**20  # of all that travels


def pack_all(
    directory: str | Path, data_dir: str, weights: str, scale: plan.Scale, *,
    progress: Callable,
) -> dict[Path, int]:  # fmt: skip
    """Writes the parcels and the weights to a directory; returns the bytes of each file.

    Raises:
      UserError: bad input, something in the directory that is not ours, or more than `MOST_BYTES`.
    """
    top, source = Path(directory), Path(weights)
    check_directory(top, PARCEL, "--pack")
    before = (read_json(top / LIST) or {}).get("files", {})
    place = top / f"weights{source.suffix}"
    digest = check_weights(weights)
    layout = layouts.get(plan.DATASET)
    categories = layouts.select_categories(layout, data_dir, list(plan.CATEGORIES))
    write_json(top / LIST, {"files": before | {place.name: digest}})
    with source.open("rb") as file:
        write_own(place, partial(shutil.copyfileobj, file), partial(_is_known, before))
    paths = [place]
    for name in categories:
        files = layouts.read_category(layout, data_dir, name, 0, False)
        versions = [
            open_category(plan.DATASET, data_dir, name, geometry, None, progress=progress)
            for geometry in scale.geometries
        ]
        paths.append(parcel.pack(top, versions, fingerprint(files, AS_IS)))
    sizes = {path: path.stat().st_size for path in paths}
    if (whole := sum(sizes.values())) > MOST_BYTES:
        raise UserError(
            f"--pack={top}: {whole / 2**20:.1f} MiB in all; expected at most "
            f"{MOST_BYTES / 2**20:.0f} MiB"
        )
    return sizes


def _is_known(before: dict[str, str], path: str | Path) -> bool:
    """Whether a file of weights is one that was packed here before."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return before.get(Path(path).name) == digest
