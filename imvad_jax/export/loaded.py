"""Runs an export as its user would, in a process without imvad_jax; a script of `check`.

    python -P loaded.py EXAMPLE EXPORT IMAGES.npy OUT.npz BATCH [BATCH ...]

EXAMPLE is a script of export/examples, whose `load` is taken. The images are scored in batches of
the sizes given, one after the other.
"""

import runpy
import sys
from typing import Any

import numpy as np

if __name__ == "__main__":
    example, exported, images, out, *sizes = sys.argv[1:]
    detect, _ = runpy.run_path(example)["load"](exported)
    batches = np.split(np.load(images), np.cumsum([int(size) for size in sizes])[:-1])
    found = [{name: np.asarray(value) for name, value in detect(b).items()} for b in batches]
    if "imvad_jax" in sys.modules:
        sys.exit("the export was loaded with the help of imvad_jax")
    arrays: Any = {name: np.concatenate([f[name] for f in found]) for name in found[0]}
    np.savez(out, **arrays)
