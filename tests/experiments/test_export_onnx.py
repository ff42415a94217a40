"""ONNX Runtime computes what the detectors do, by the programs and the environment of its users.

A run that this environment saved is exported by the one that `make install-onnx` makes (jax2onnx
cannot be installed beside this project's orbax). Differences and milliseconds are printed at the
end of the run.
"""

import os
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from imvad_jax import api
from imvad_jax.export import check, to_stablehlo, whole
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel
from tests.methods.small import briefly, images, make

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-onnx" / "bin" / "python"
METHODS = ("padim", "patchcore", "stpm")
WEIGHTS = "weights/resnet18_conv1_to_layer3.safetensors"
ROUNDS = 15  # timed, of which the median counts

# One process loads all files by the example scripts: outputs of batches of 1 and of the rest, and
# the milliseconds an image of the latter, of both formats in turn.
DRIVER = """
import runpy, sys, time
import numpy as np
examples, folder, rounds, *names = sys.argv[1:]
images = np.load(folder + "/images.npy")
kinds = ("onnx", "stablehlo")
loads = {kind: runpy.run_path(f"{examples}/score_{kind}.py")["load"] for kind in kinds}
for name in names:
    detectors = {kind: load(f"{folder}/{name}.{kind}")[0] for kind, load in loads.items()}
    for kind, detect in detectors.items():
        parts = [detect(images[:1]), detect(images[1:])]
        found = {key: np.concatenate([np.asarray(p[key]) for p in parts]) for key in parts[0]}
        np.savez(f"{folder}/{name}.{kind}.npz", **found)
    seconds = {kind: [] for kind in detectors}
    for _ in range(int(rounds)):
        for kind, detect in detectors.items():
            start = time.perf_counter()
            [np.asarray(value) for value in detect(images[1:]).values()]
            seconds[kind].append(time.perf_counter() - start)
    print(name, *(1e3 * np.median(seconds[kind]) / (len(images) - 1) for kind in kinds))
assert "imvad_jax" not in sys.modules
"""


def run(*command) -> str:
    # Without the flags of the tests, which compile programs that are slower.
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_onnx_runtime_computes_what_the_detectors_do(tmp_path, shared_dir, record_property):
    if not PYTHON.exists():
        pytest.skip("no environment for ONNX: make install-onnx")
    weights = shared_dir / WEIGHTS
    weights = str(weights) if weights.is_file() else "random"
    batch = images(5, 1).images
    np.save(tmp_path / "images.npy", batch)
    functions = {}
    for method in METHODS:
        detector, variables = briefly(*make(method, weights))
        variables = fit(detector, variables, images(20), Parallel(jax.devices()[:1]))
        api.save(api.Model(method, detector, variables, fitted=True), tmp_path / method)
        functions[method] = whole.restore(tmp_path / method)
        to_stablehlo.write(functions[method], tmp_path / f"{method}.stablehlo", 0, ("cpu",))
        said = run(
            PYTHON, "-m", "experiments.export", f"--workdir={tmp_path / method}", "--format=onnx",
            f"--output={tmp_path / method}.onnx", f"--cache_dir={tmp_path / 'cache'}",
        )  # fmt: skip
        assert "compared with the detector on 4 images of noise" in said
    timed = run(PYTHON, "-c", DRIVER, check.EXAMPLES, tmp_path, ROUNDS, *METHODS)
    lines = [f"weights: {Path(weights).name}; difference from the detector, milliseconds an image"]
    for line in timed.splitlines():
        method, *milliseconds = line.split()
        expected = check.live(functions[method], batch)
        for kind, value in zip(("onnx", "stablehlo"), milliseconds, strict=True):
            with np.load(tmp_path / f"{method}.{kind}.npz") as found:
                parity = check.differences(expected, dict(found))
            lines.append(f"{method:12}{kind:12}{max(parity.values()):8.0e}{float(value):8.2f}")
    assert len(lines) == 1 + 2 * len(METHODS)
    record_property("figures", "\n".join(lines))
