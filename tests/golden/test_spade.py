"""SPADE against byungjae89/SPADE-pytorch, which leaves some rows of the gallery out."""

import jax
import numpy as np

from imvad_jax.methods.spade import SPADE, SPADEConfig
from imvad_jax.ops import neighbors
from tests.golden import resnets, training
from tests.golden.files import as_float, images

SIZE, CHUNK = 112, 100
NEIGHBORS = 5


def as_the_official_loop(memory: dict, layers, nearest: np.ndarray) -> dict:
    """The memory without the rows that the official loop does not come to, for one test image.

    It takes the rows of the nearest images, the last one's last columns last, a hundred at a time
    and drops the rest. They are overwritten by a row that counts, which changes no minimum.
    """
    memory = dict(memory)
    for name in layers:
        gallery = np.array(memory[name])
        positions = gallery.shape[1]
        side = int(positions**0.5)
        left_out = NEIGHBORS * positions % CHUNK
        column, row = np.divmod(np.arange(positions - left_out, positions), side)
        gallery[nearest[-1], row * side + column] = gallery[nearest[-1], 0]
        memory[name] = gallery
    return memory


def test_neighbours_scores_and_maps(load_golden):
    golden = load_golden("spade")
    config = SPADEConfig(backbone="resnet18", image_size=SIZE, crop_size=0, batch_size=8)
    detector = SPADE(config)
    variables = {"backbone": resnets.variables("resnet18", detector.outputs)}
    variables = training.gathered(detector, variables, images(8, SIZE, 51))
    memory, test = jax.device_get(variables["memory"]), as_float(images(2, SIZE, 52))

    @jax.jit
    def run(variables, x):
        pooled = detector.apply(variables, x, ("pool",), method="features")["pool"]
        return detector.apply(variables, x), pooled

    found, pooled = run(variables, test)
    count = int(memory["count"])
    squared, nearest = neighbors.nearest(
        pooled - memory["pooled_center"], memory["pooled"][:count], NEIGHBORS
    )
    golden.check("nearest images", nearest, golden["nearest"], 0)
    golden.check("their distances", np.sqrt(squared), golden["distances"], 1e-5)
    golden.check("score", found.score, golden["score"], 1e-5)
    maps = []
    for image, chosen in enumerate(golden["nearest"]):
        fewer = as_the_official_loop(memory, config.layers, chosen)
        maps.append(run(variables | {"memory": fewer}, test)[0].anomaly_map[image])
    maps = np.stack(maps)
    golden.check("map", maps, golden["map"], 1e-5)
    # With them, as the paper has it, no pixel is farther from the good ones.
    golden.check("all rows: map", found.anomaly_map, golden["map"], 4e-2)
    assert (np.asarray(found.anomaly_map) <= golden["map"] * (1 + 1e-5)).all()
