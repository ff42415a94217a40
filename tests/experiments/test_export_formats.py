"""Every method in the formats of other runtimes; `-s` prints the table of docs/export.md.

`make test-real` runs those of ONNX in the environment that `make install-onnx` makes.
"""

import importlib.util

import jax
import pytest

from imvad_jax import api, methods
from imvad_jax.errors import UserError
from imvad_jax.export import exporter, whole
from tests.methods.small import fitted_once, images, make

NEEDS = {"savedmodel": "tensorflow", "onnx": "jax2onnx"}
KINDS = [
    pytest.param("savedmodel", marks=pytest.mark.slow),
    pytest.param("onnx", marks=pytest.mark.onnx),
]
NEWER = "failed to deserialize portable artifact"  # `top_k`, which TensorFlow 2.21 cannot read
REFUSED = {  # a part of the reason, by method and format
    ("cfa", "savedmodel"): NEWER,
    ("spade", "savedmodel"): NEWER,
    ("raw_color", "onnx"): "fails at resize",  # of a batch of any size
}


def function_of(method: str) -> whole.Whole:
    """Trained parameters stay as they start: that saves most of the time.

    Not by way of a checkpoint: the environment of ONNX has another orbax.
    """
    detector, variables = make(method)
    if "statistics" in detector.phases:
        detector, variables, _ = fitted_once(method)
    variables = jax.device_get(variables)
    return whole.whole_of(api.Model(method, detector, variables, preset="smoke", fitted=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", methods.METHODS)
def test_other_runtimes_compute_the_same_or_are_refused(method, kind, tmp_path):
    if importlib.util.find_spec(NEEDS[kind]) is None:
        pytest.skip(f"{NEEDS[kind]} is not installed")
    function, batch = function_of(method), images(3, 1).images
    exporter.FORMATS[kind].check(function)
    target = {"platforms": ("cpu",), "batch_size": 0, "images": batch}
    reason = REFUSED.get((method, kind))
    if reason:
        with pytest.raises(UserError, match=reason) as refused:
            exporter.export(function, kind, tmp_path / "d", **target)
        outcome = str(refused.value)
    else:
        parity = exporter.export(function, kind, tmp_path / "d", **target)
        outcome = f"{max(parity.values()):.0e}"
    print(f"\n{method:12}{kind:12}{outcome}")
