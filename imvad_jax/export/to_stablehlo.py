"""StableHLO: a zip of the program (jax.export), the arrays as .npy, and the metadata.

The arrays lie beside the program, which takes them as arguments: as constants within it they are
lowered and compiled many times more slowly, and may not exceed 2 GiB. numpy opens the file.
"""

import json
import zipfile
from pathlib import Path

import jax
import numpy as np
from jax import export

from imvad_jax.export.whole import Whole

FOLDER = "arrays/"


def check(whole: Whole) -> None:
    """Refuses nothing: all there is fits the format."""


def write(whole: Whole, path: Path, batch_size: int, platforms: tuple[str, ...]) -> None:
    """Writes the file; a `batch_size` of 0 takes any."""
    batch = batch_size or export.symbolic_shape("batch")[0]
    exported = export.export(jax.jit(whole.__call__), platforms=platforms)(
        whole.array_shapes(), whole.image_shape(batch)
    )
    metadata = whole.metadata(batch_size) | {
        "platforms": list(platforms),
        "arrays": [FOLDER + name for name in whole.arrays],
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", json.dumps(metadata, indent=1))
        archive.writestr("detector.jax_export", exported.serialize(vjp_order=0))
        for name, array in whole.arrays.items():
            with archive.open(f"{FOLDER}{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
