"""The exports of a detector beside it on the CPU: ONNX Runtime and StableHLO, measured in turn.

Needs the environment of `make install-onnx`. Exports are written and loaded as their users do.
"""

import importlib.util
import os
import runpy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imvad_jax.benchmarks.frozen_backbone import frozen_backbone
from imvad_jax.benchmarks.in_turn import largest_difference, timed
from imvad_jax.benchmarks.workloads import Options, Subject
from imvad_jax.data.batches import ArrayImages
from imvad_jax.errors import UserError
from imvad_jax.export import check, to_onnx, to_stablehlo
from imvad_jax.export.whole import Whole
from imvad_jax.ops import convolution
from imvad_jax.training.job import as_float
from imvad_jax.training.score import Scorer

# uint8 images [B, S, S, 3] to arrays by name; ours may have a device axis in front.
Call = Callable[[np.ndarray], Mapping[str, Any]]


def check_installed() -> None:
    """Raises UserError where ONNX Runtime or jax2onnx is missing."""
    missing = [m for m in ("onnxruntime", "jax2onnx") if importlib.util.find_spec(m) is None]
    if missing:
        raise UserError(
            f"--compare=onnx: {' and '.join(missing)} not installed here; 'make install-onnx' "
            "makes an environment for it: call this program with .venv-onnx/bin/python"
        )


def compare(subject: Subject, function: Whole) -> dict:
    """`{versions, threads, parts: {work: {ours_s, theirs_s, ratio, difference}}}`.

    The work is that of a batch and of one image: the frozen backbone and the scoring, both against
    ONNX Runtime, and the export as StableHLO (as ours) against the one to ONNX. Every export is
    made for its number of images. One image is scored as `Model.score` does: devices share its
    rows.

    Args:
      subject: What is measured, fitted.
      function: What its detector computes.

    Raises:
      UserError: Not on the CPU, or the detector cannot be converted or is too large.
    """
    if subject.parallel.local[0].platform != "cpu":
        raise UserError("--compare=onnx: compares on the CPU, but JAX computes elsewhere here")
    to_onnx.check_size(function, "--compare=onnx")
    parts = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in dict.fromkeys((subject.parallel.here().batch_size(subject.batch_size), 1)):
            images = next(iter(subject.images.batches(size))).images
            exports = _exports(function, Path(folder), size)
            pairs = {"score": (_scorer(subject), exports["onnx"]),
                     "StableHLO": (exports["stablehlo"], exports["onnx"])}  # fmt: skip
            if subject.detector.outputs:
                alone = frozen_backbone(subject, size), _exported_backbone(subject, size)
                pairs["backbone"] = alone
            for work, (ours, theirs) in pairs.items():
                name = work if size > 1 else f"{work}, one image"
                parts[name] = _in_turn(subject.options, ours, theirs, images)
    return {"versions": {"onnxruntime": _runtime().__version__}, "threads": os.cpu_count(),
            "parts": parts}  # fmt: skip


def _runtime() -> Any:
    import onnxruntime  # pyright: ignore[reportMissingImports] - lives in .venv-onnx

    return onnxruntime


def _exports(function: Whole, folder: Path, size: int) -> dict[str, Call]:
    """The exports for so many images, loaded by the example scripts."""
    found = {}
    for kind, module in (("onnx", to_onnx), ("stablehlo", to_stablehlo)):
        path = folder / f"{size}.{kind}"
        try:
            module.write(function, path, size, ("cpu",))
        except Exception as error:  # whatever a converter raises
            raise UserError(
                f"--compare=onnx: {function.model.title} cannot be converted to {kind} "
                f"({type(error).__name__}: {' '.join(str(error).split())[:300]})"
            ) from error
        script = check.EXAMPLES / f"score_{kind}.py"
        found[kind] = runpy.run_path(str(script))["load"](path)[0]
    return found


def _exported_backbone(subject: Subject, size: int) -> Call:
    """The frozen backbone alone in ONNX Runtime."""
    detector, names = subject.detector, list(subject.detector.outputs)
    variables = {"backbone": subject.variables["backbone"]}

    def features(images):
        with convolution.forms("xla"):
            found = detector.apply(variables, as_float(images), method="features")
        return tuple(found[name] for name in names)

    shape = (size, detector.config.input_size, detector.config.input_size, 3)
    model = to_onnx.convert(features, shape, names, detector.config.backbone)
    session = _runtime().InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def _scorer(subject: Subject) -> Call:
    """Our scoring, from images to scores and maps in host memory."""
    scorer = Scorer(subject.detector, subject.variables, subject.parallel)

    def call(images):
        found = scorer.score(ArrayImages(images), len(images))
        maps = {} if found.maps is None else {"anomaly_map": found.maps}
        return {"score": found.image, **maps}

    return call


def _in_turn(options: Options, ours: Call, theirs: Call, images: np.ndarray) -> dict:
    def repeated(call: Call) -> Callable[[int], None]:
        def run(count: int) -> None:
            for _ in range(count):
                jax.block_until_ready(call(images))

        return run

    expected, found = ours(images), theirs(images)
    differences = [
        largest_difference(np.reshape(array, found[name].shape), found[name])
        for name, array in expected.items()
    ]
    return timed(options, repeated(ours), repeated(theirs), float(np.max(differences)))
