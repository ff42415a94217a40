"""FastFlow against gathierry/FastFlow and FrEIA, on given features; ten steps of its training."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.methods.fastflow import FastFlow, FastFlowConfig
from tests.golden import training
from tests.golden.files import channels_last

NORM = {"weight": "scale", "bias": "bias"}
CONV = {"0": "conv1", "2": "conv2"}
LEAF = {"weight": "kernel", "bias": "bias"}


def to_ours(tensors: dict[str, np.ndarray]) -> dict:
    """Tensors by the official names as our parameters, flat."""
    found = {}
    for name, value in tensors.items():
        part, scale, *rest = name.split(".")
        layer = f"layer{int(scale) + 1}"
        if part == "norms":
            found[f"norms_{layer}", NORM[rest[0]]] = value.transpose(1, 2, 0)
            continue
        _, step, what, *inner = rest
        path = (f"flows_{layer}", f"step_{step}")
        if what.startswith("global"):
            found[(*path, what)] = value.reshape(-1)
        else:
            leaf = LEAF[inner[1]]
            value = value.transpose(2, 3, 1, 0) if leaf == "kernel" else value
            found[(*path, "subnet", CONV[inner[0]], leaf)] = value
    return found


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("fastflow")


@pytest.fixture(scope="module")
def features(golden):
    return {name: channels_last(x) for name, x in golden["features/"].items()}


@pytest.fixture(scope="module")
def variables(golden):
    return {
        "params": traverse_util.unflatten_dict(to_ours(golden["params/"])),
        "memory": {f"permutations_{k}": x.astype(np.int32) for k, x in golden["perms/"].items()},
    }


CONFIG = FastFlowConfig(image_size=32, flow_steps=4, backbone="resnet18")


def test_latents_map_and_score(golden, features, variables):
    class OnFeatures(FastFlow):
        def frozen_features(self, images):
            return features

    detector = OnFeatures(CONFIG)

    @jax.jit
    def run(variables, images):
        latents = detector.apply(variables, features, method="latents")
        return latents, detector.apply(variables, images)

    latents, found = run(variables, np.zeros((3, 32, 32, 3), np.float32))
    z = {name: channels_last(x) for name, x in golden["z/"].items()}
    golden.check("latents", {name: x for name, (x, _) in latents.items()}, z, 1e-5)
    log_det = {name: x for name, (_, x) in latents.items()}
    golden.check("log determinants", log_det, golden["log_det/"], 1e-5)
    golden.check("map", found.anomaly_map, golden["anomaly_map"][:, 0], 1e-5)
    golden.check("score", found.score, golden["image_score"], 1e-5)


def test_training(golden, features, variables):
    found = training.train(training.kept(FastFlow(CONFIG)), variables, 10 * [features])
    golden.check("loss", found.figure("loss")[0], golden["loss"], 1e-5)
    gradients = traverse_util.flatten_dict(found.gradients)
    golden.check("gradients of all parameters", gradients, to_ours(golden["grad/"]), 1e-4)
    golden.check("losses of 10 steps", found.figure("loss"), golden["losses10"], 1e-5)
    last = traverse_util.flatten_dict(found.states[-1]["params"])
    golden.check("parameters after 10 steps", last, to_ours(golden["after10/"]), 1e-4)
