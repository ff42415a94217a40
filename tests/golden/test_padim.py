"""PaDiM against xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master."""

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.methods.padim import PaDiM, PaDiMConfig
from imvad_jax.ops import gaussian
from tests.golden import resnets, training
from tests.golden.files import as_float, images


def test_gaussians_distances_map_and_score(load_golden):
    golden = load_golden("padim")
    config = PaDiMConfig(backbone="resnet18", image_size=64, crop_size=0, batch_size=8)
    detector = PaDiM(config)
    order = np.argsort(golden["channels"])  # ours are sorted
    variables = {
        "backbone": resnets.variables("resnet18", detector.outputs),
        "memory": {"channels": jnp.asarray(golden["channels"][order])},
    }
    variables = training.gathered(detector, variables, images(24, 64, 41))
    memory = jax.device_get(variables["memory"])
    golden.check("means", memory["mean"].T, golden["mean"][order], 1e-5)
    factors = memory["whitening"][:4].astype(np.float64)
    covariances = np.linalg.inv(factors @ factors.transpose(0, 2, 1))
    expected = golden["cov_first4"][np.ix_(order, order)].transpose(2, 0, 1)
    golden.check("covariances", covariances.astype(np.float32), expected, 1e-4)

    @jax.jit
    def run(variables, x):
        memory = variables["memory"]
        embedding = detector.apply(variables, x, method="embed")
        distances = gaussian.mahalanobis(embedding, memory["mean"], memory["whitening"])
        return detector.apply(variables, x), distances

    found, distances = run(variables, as_float(images(3, 64, 42)))
    golden.check("distances", distances, golden["distances"], 5e-5)
    golden.check("map", found.anomaly_map, golden["map"], 5e-5)
    # Officially the maps of all test images are stretched to [0, 1] first, which changes no rank.
    low, high = found.anomaly_map.min(), found.anomaly_map.max()
    score = (found.score - low) / (high - low)
    golden.check("score", score, golden["normalised_image_score"], 5e-5)
