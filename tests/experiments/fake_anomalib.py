"""A made-up anomalib and a small dataset, for the comparison of whole processes."""

import stat
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from imvad_jax import methods, presets
from imvad_jax.benchmarks import anomalib_processes

FAKE = f"""#!{sys.executable}
import json, pathlib, sys
given = dict(text[2:].split("=", 1) for text in sys.argv[2:] if "=" in text)
if "--versions" in sys.argv:
    print("a line that an import prints")
    print(json.dumps({{"anomalib": "9.9"}}))
    sys.exit()
runs = pathlib.Path(__file__).with_suffix(".runs")
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
if given["seed"] == "13" and len(runs.read_text()) == 2:
    sys.exit("ValueError: no luck")
epochs = int(given.get("epochs", 0))
json.dump({{
    "versions": {{"anomalib": "9.9"}}, "threads": 2, "images": [4, 2],
    "seconds": {{"import_s": 1.0, "fit_s": 20.0, "validate_s": 7.0, "test_s": 10.0}},
    "epoch_s": [8.0, 4.0, 2.0][:epochs], "steps": int(given["seed"]) or 1,
    "metrics": {{"image_auroc": 0.75}}, "seen": given,
}}, open(given["out"], "w"))
"""


def write_fake(path: Path) -> str:
    """An interpreter that says what anomalib's driver would; steps of an epoch are the seed."""
    path.write_text(FAKE)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def write_parts(root: Path) -> str:
    """Four good images to fit on, a good and a defective one to test."""
    images = np.random.default_rng(0).integers(0, 256, (6, 70, 70, 3), np.uint8)
    names = [*(f"train/good/{n}" for n in range(4)), "test/good/0", "test/bent/0"]
    names = [f"bolt/{name}.png" for name in names]
    mask = np.zeros((70, 70), np.uint8)
    mask[10:30, 10:30] = 255
    for name, image in [*zip(names, images), ("bolt/ground_truth/bent/0_mask.png", mask)]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name)
    return str(root)


def request(python, workdir, parts="unused", method="padim", **changes):
    """What is compared: a smoke preset on the small dataset."""
    given = {
        "python": python, "method": method, "preset": "smoke", "overrides": {}, "data_dir": parts,
        "category": "bolt", "weights": "random", "seed": 0, "device_flags": (),
        "workdir": workdir, "repeats": 3,
    } | changes  # fmt: skip
    return anomalib_processes.Request(**given)


def detector(method, preset="smoke", **overrides):
    """An unfitted detector."""
    text = {name: str(value) for name, value in overrides.items()}
    return methods.make(method, presets.resolve(method, preset, text))


def figures(decode, process):
    """What a run of ours took."""
    return {
        "decode_s": decode, "fit_s": 2.0, "score_s": 1.0, "metrics_s": 0.5, "compile_s": 0.25,
        "process_s": process, "cpu_s": 9.0, "peak_bytes": 2**30, "metrics": {"image_auroc": 0.5},
    }  # fmt: skip
