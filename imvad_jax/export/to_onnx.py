"""ONNX export by jax2onnx, which needs its own environment with an older orbax."""

import importlib.util
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from imvad_jax.errors import UserError
from imvad_jax.export.whole import Whole
from imvad_jax.ops import loops

LIMIT = 2**31  # bytes of a protobuf message


def check(whole: Whole) -> None:
    """Raises UserError if jax2onnx is not there, or the arrays are more than an ONNX file holds."""
    if importlib.util.find_spec("jax2onnx") is None:
        raise UserError(
            "--format=onnx: jax2onnx is not installed here. It needs an environment of its own: "
            "'make install-onnx' makes it; then call this program with .venv-onnx/bin/python"
        )
    check_size(whole, "--format=onnx")


def check_size(whole: Whole, flag: str) -> None:
    """Raises UserError, which names the flag, if the arrays are more than an ONNX file holds."""
    if whole.nbytes >= LIMIT:
        raise UserError(
            f"{flag}: the arrays of {whole.model.title} take {whole.nbytes / 2**30:.2f} GiB; an "
            f"ONNX file holds less than {LIMIT / 2**30:.0f} (protobuf's limit); stablehlo and "
            "savedmodel hold more"
        )


def failed_operation(error: Exception) -> str | None:
    """Name of the operation that jax2onnx was converting when it failed; it has a file for each."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "jax2onnx" in path.parts and "plugins" in path.parts and path.stem[0] != "_":
            return path.stem
    return None


def convert(function: Callable, shape: tuple, names: Sequence[str], title: str):
    """The ONNX model of `function`, of uint8 `images` of that shape to a tuple of arrays.

    Raises NotImplementedError with the operation that jax2onnx fails at.
    """
    import jax2onnx  # pyright: ignore[reportMissingImports] - lives in .venv-onnx

    try:
        with loops.unrolled():  # jax2onnx fails at loops over traced arrays
            model = jax2onnx.to_onnx(
                function,
                [jax.ShapeDtypeStruct(shape, jnp.uint8)],
                model_name=title,
                input_names=["images"],
                output_names=list(names),
            )
    except Exception as error:  # of any kind
        operation = failed_operation(error)
        if not operation:
            raise
        raise NotImplementedError(
            f"jax2onnx fails at {operation}, {type(error).__name__}: {error}"
        ) from error
    # jax2onnx moves transposes but keeps their old shapes; the runtime infers shapes by itself.
    model.graph.ClearField("value_info")
    return model


def write(whole: Whole, path: Path, batch_size: int, platforms: tuple[str, ...]) -> None:
    """Writes the file; a `batch_size` of 0 takes any. ONNX knows no platforms."""
    del platforms
    arrays = [jnp.asarray(array) for array in whole.arrays.values()]
    names = sorted(whole.output_shapes())
    shape = (batch_size or "batch", *whole.image_shape(1).shape[1:])
    model = convert(
        lambda images: tuple(whole.plain(arrays, images)[name] for name in names),
        shape, names, whole.model.method,
    )  # fmt: skip
    entry = model.metadata_props.add()
    entry.key, entry.value = "metadata", json.dumps(whole.metadata(batch_size))
    path.write_bytes(model.SerializeToString())
