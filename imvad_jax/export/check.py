"""Checks that an export computes the same as the detector, in another process on the same images.

Both compute on the CPU: accelerators round matrix products, and two processes may not share one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import numpy as np

from imvad_jax import leaving
from imvad_jax.data.batches import ArrayImages, in_memory
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import load_image
from imvad_jax.data.inputs import find_images
from imvad_jax.errors import UserError
from imvad_jax.export import loaded
from imvad_jax.export.whole import Whole
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score

IMAGES = 4  # compared at most, of test images evenly spread
TOLERANCE = 1e-4  # relative to the largest value
EXAMPLES = Path(__file__).resolve().with_name("examples")


def choose_images(
    whole: Whole, folder: str | None, decoded_dir: str | None
) -> tuple[np.ndarray, str]:
    """uint8 images `[N, S, S, 3]` to compare on, and what they are, in words.

    Those of `folder`; else test images of the run that are still in the decoded cache; else noise.

    Raises:
      UserError: the folder holds no image, or one that cannot be read.
    """
    if folder:
        paths = find_images([folder], flag="--check_images").images
        reader = whole.model.reader
        found = [load_image(path, whole.model.geometry, reader) for path in _spread(paths)]
        return _rgb(found), f"{len(found)} images of {folder}"
    dataset, category = (whole.model.record.get(key) for key in ("dataset", "category"))
    if dataset and category:
        try:
            data = open_category(dataset, None, category, whole.model.geometry, decoded_dir)
        except UserError:
            data = None
        if data is not None and len(data.test):
            images = in_memory(data.test).images
            found = [images[i] for i in _spread(range(len(images)))]
            return _rgb(found), f"{len(found)} test images of {dataset}/{category}"
    noise = np.random.default_rng(0).integers(0, 256, whole.image_shape(IMAGES).shape)
    return noise.astype(np.uint8), f"{IMAGES} images of noise (name real ones by --check_images)"


def _spread(items):
    count = min(len(items), IMAGES)
    return [items[i * len(items) // count] for i in range(count)]


def _rgb(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.broadcast_to(image, (*image.shape[:2], 3)) for image in images])


def live(whole: Whole, images: np.ndarray) -> dict[str, np.ndarray]:
    """What the detector itself says of the images, by output."""
    model = whole.model
    found = score(
        model.detector, model.variables, ArrayImages(images), Parallel(jax.devices("cpu")[:1]),
        len(images),
    )  # fmt: skip
    return whole.normalize(found.image, found.maps)


def reloaded(kind: str, path: Path, images: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
    """What the export at `path` says of the images, in a process that knows nothing of imvad_jax.

    They go in batches of 1 and of all others, or of `batch_size`.

    Raises:
      UserError: it cannot be loaded or fails; the end of what it said is in the message.
    """
    count = len(images)
    sizes = [1, count - 1] if count > 1 else [1]
    if batch_size:
        count = -(-count // batch_size) * batch_size
        sizes = [batch_size] * (count // batch_size)
    padded = np.resize(images, (count, *images.shape[1:]))
    with (
        tempfile.TemporaryDirectory() as folder,
        leaving.undone_by(partial(shutil.rmtree, folder, ignore_errors=True)),
    ):
        given, out = Path(folder) / "images.npy", Path(folder) / "out.npz"
        np.save(given, padded)
        script = EXAMPLES / f"score_{kind}.py"
        command = [sys.executable, "-P", loaded.__file__, script, path, given, out, *sizes]
        done = leaving.run(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""},
        )
        if done.returncode:
            raise UserError(
                f"--format={kind}: the export fails where it is loaded again: "
                f"{done.stderr.strip()[-600:] or done.returncode}"
            )
        with np.load(out) as found:
            return {name: found[name][: len(images)] for name in found.files}


def differences(expected: dict, found: dict) -> dict[str, float]:
    """Largest difference of each output, relative to its largest value.

    Raises:
      UserError: other outputs or shapes, a larger difference than `TOLERANCE`, or no numbers.
    """
    shapes = [{name: a.shape for name, a in side.items()} for side in (expected, found)]
    if shapes[0] != shapes[1]:
        raise UserError(f"the export gives {shapes[1]}; expected {shapes[0]}")
    parity = {}
    for name in sorted(expected):
        largest = np.abs(expected[name]).max() or 1.0
        parity[name] = float(np.abs(found[name] - expected[name]).max() / largest)
    wrong = [f"{name} by {value:.2g}" for name, value in parity.items() if not value <= TOLERANCE]
    if wrong:
        raise UserError(
            f"the export differs from the detector: {', '.join(wrong)} of the largest value; "
            f"allowed {TOLERANCE:g}. It was not kept"
        )
    return parity
