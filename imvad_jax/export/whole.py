"""The complete function of a run, from uint8 images to scores and maps, with its metadata."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import Array

from imvad_jax import __version__
from imvad_jax.model import Model, load, store
from imvad_jax.ops import convolution
from imvad_jax.training.job import as_float

VERSION = 1  # of the metadata
FORMAT = "imvad_jax export"
MEANINGS = {
    "score": "the method's own score of the image; larger is more anomalous",
    "normalized_score": "the score from 0 to 1: 0.5 is the threshold, 0.25 a usual good image",
    "anomaly_map": "the method's own value of each pixel; larger is more anomalous",
    "normalized_map": "the map from 0 to 1: 0.5 is the threshold of a region",
}


@dataclasses.dataclass(frozen=True)
class Whole:
    """A fitted model as a pure function of its arrays and of images.

    `arrays` are all its numbers, the memory bank too, by name. Without a calibration the scores and
    maps are the method's own alone.
    """

    model: Model
    arrays: dict[str, np.ndarray]

    def __call__(self, arrays: list[Array], images: Array) -> dict[str, Array]:
        """Outputs `[B]` and `[B, S, S]` by name from `arrays` in their order and uint8 images.

        Images are RGB, `[B, S, S, 3]`, S the input size of the method.
        """
        variables = traverse_util.unflatten_dict(dict(zip(self.arrays, arrays)), sep="/")
        found = self.model.detector.apply(variables, as_float(images))
        return self.normalize(found.score, found.anomaly_map)

    def plain(self, arrays: list[Array], images: Array) -> dict[str, Array]:
        """As a call, traced with plain convolutions, for runtimes that have forms of their own."""
        with convolution.forms("xla"):
            return self(arrays, images)

    def normalize(self, score, anomaly_map) -> dict[str, Any]:
        """Builds the outputs by name from the method's prediction (NumPy or JAX arrays)."""
        outputs = {"score": score}
        if anomaly_map is not None:
            outputs["anomaly_map"] = anomaly_map
        if calibration := self.model.calibration:
            outputs["normalized_score"] = calibration.image.normalize(score)
            if anomaly_map is not None and calibration.pixel:
                outputs["normalized_map"] = calibration.pixel.normalize(anomaly_map)
        return outputs

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def array_shapes(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes of the arrays, in their order."""
        return [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in self.arrays.values()]

    def image_shape(self, batch) -> jax.ShapeDtypeStruct:
        """Shape of a batch of images."""
        size = self.model.input_size
        return jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)

    def output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the outputs for one image."""
        found = jax.eval_shape(self, self.array_shapes(), self.image_shape(1))
        return {name: shape.shape for name, shape in found.items()}

    def metadata(self, batch_size: int) -> dict[str, Any]:
        """For JSON: what a program needs that knows nothing of this project."""
        model = self.model
        geometry, calibration, about = model.geometry, model.calibration, store.describe(model)
        batch, size = batch_size or "batch", geometry.crop
        first, last = geometry.offset, geometry.offset + size
        return {
            "format": FORMAT,
            "version": VERSION,
            **{key: about.get(key) for key in ("method", "title", "dataset", "category", "config",
                                                "weights", "notes", "tile", "overlap")},
            "input": {
                "name": "images",
                "dtype": "uint8",
                "shape": [batch, size, size, 3],
                "channels": "RGB; grey values three times",
                "resize": [geometry.size, geometry.size],
                "resample": f"{geometry.resize}, antialiased where it shrinks (Pillow's "
                f"{geometry.resize.upper()})",
                "crop": [first, first, last, last],  # left, top, right, bottom: Pillow's crop
                # White in files deeper than 8 bits; None: 65535 in integers, 1.0 in floats.
                "full_scale": about.get("full_scale"),
            },
            "outputs": {
                name: {"dtype": "float32", "shape": [batch, *shape[1:]], "meaning": MEANINGS[name]}
                for name, shape in self.output_shapes().items()
            },
            "calibration": calibration and {
                "image": dataclasses.asdict(calibration.image),
                "pixel": calibration.pixel and dataclasses.asdict(calibration.pixel),
            },
            "versions": {"imvad_jax": __version__, "jax": jax.__version__},
        }  # fmt: skip


def restore(run_dir: Path) -> Whole:
    """The whole function of a fitted model. Raises UserError if there is none."""
    return whole_of(load(run_dir))


def whole_of(model: Model) -> Whole:
    """The whole function of a fitted model in memory."""
    variables = model.detector.trim_memory(dict(model.variables))
    arrays = traverse_util.flatten_dict(variables, sep="/")
    return Whole(model, {name: np.asarray(array) for name, array in arrays.items()})
