"""Part f: one epoch with either training loop, on the images of a decoded cache.

`python -m ... FILE METHOD PRESET CACHE_DIR DATASET CATEGORY` writes the figures to FILE.
"""

import sys
from pathlib import Path

import jax

from imvad_jax import presets
from imvad_jax.benchmarks.suite.files import write_json
from imvad_jax.benchmarks.training_loops import training_loops
from imvad_jax.benchmarks.workloads import Options, Subject, before_training
from imvad_jax.data.category import open_category
from imvad_jax.data.decode import Geometry
from imvad_jax.model.inputs import read_picture_dirs
from imvad_jax.model.make import assemble
from imvad_jax.runs.record import environment
from imvad_jax.training.fit import init_variables
from imvad_jax.training.parallel import Parallel

REPEATS = 3


def measure(method: str, preset: str, cache_dir: str, dataset: str, category: str) -> dict:
    """The seconds of an epoch on all good images of a category, with random weights.

    Raises:
      UserError: an unknown method or preset, or images that the cache does not hold.
    """
    config, parallel = presets.resolve(method, preset, {}), Parallel(jax.local_devices())
    model = assemble(method, config, "random", 0, preset=preset, parallel=parallel)
    geometry, decoded = Geometry.of(config), str(Path(cache_dir, "decoded"))
    images = open_category(dataset, None, category, geometry, decoded).train
    start = init_variables(model.detector, model.variables.get("backbone"), 0)
    subject = Subject(
        detector=model.detector, variables=start | read_picture_dirs(model.config)[0],
        images=images, parallel=parallel, seed=0, options=Options(repeats=REPEATS, least_seconds=0),
    )  # fmt: skip
    subject.variables = before_training(subject)
    about = {"method": method, "title": model.title, "preset": preset, "category": category}
    return about | environment(parallel) | training_loops(subject)


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), {"loops": [measure(*sys.argv[2:])]})
