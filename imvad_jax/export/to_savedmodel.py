"""SavedModel: jax2tf's call of the same program, with the arrays as TensorFlow variables."""

import json
from pathlib import Path
from typing import Any

from imvad_jax.data.pipeline import load_tensorflow
from imvad_jax.export.whole import Whole


def check(whole: Whole) -> None:
    """Raises UserError if TensorFlow is not installed."""
    load_tensorflow("--format=savedmodel", "or take --format=stablehlo")


def write(whole: Whole, path: Path, batch_size: int, platforms: tuple[str, ...]) -> None:
    """Writes the folder; a `batch_size` of 0 takes any."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    size = whole.model.input_size
    converted = jax2tf.convert(
        whole.plain,
        polymorphic_shapes=[None, None if batch_size else "(batch, _, _, _)"],
        native_serialization_platforms=platforms,
        with_gradient=False,
    )
    module: Any = tf.Module()  # takes any attribute
    # As constants of the graph they may not exceed 2 GiB.
    module.arrays = [
        tf.Variable(array, trainable=False)  # pyright: ignore[reportArgumentType] - takes arrays
        for array in whole.arrays.values()
    ]
    images = tf.TensorSpec((batch_size or None, size, size, 3), tf.uint8, "images")
    module.detect = tf.function(
        lambda images: converted(module.arrays, images), input_signature=[images], autograph=False
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.detect})
    extra = path / "assets.extra"  # TensorFlow's name for files of others
    extra.mkdir()
    metadata = whole.metadata(batch_size) | {"platforms": list(platforms)}
    (extra / "metadata.json").write_text(json.dumps(metadata, indent=1), encoding="utf-8")
