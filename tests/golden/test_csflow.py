"""CS-Flow against marco-rudolph/cs-flow, on given features; ten steps of its training."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.methods.csflow import SCALES, CSFlow, CSFlowConfig
from tests.golden import training
from tests.golden.files import channels_last

CONFIG = CSFlowConfig(backbone="resnet18", layer="layer3", hidden=10, image_size=64, with_map=True)
SUBNET = {"s1": "from_first", "s2": "from_second"}
CONV = {
    "conv_scale0_0": "conv1_0", "conv_scale1_0": "conv1_1", "conv_scale2_0": "conv1_2",
    "conv_scale0_1": "conv2_0", "conv_scale1_1": "conv2_1", "conv_scale2_1": "conv2_2",
    "up_conv10": "up_0", "up_conv21": "up_1", "down_conv01": "down_1", "down_conv12": "down_2",
}  # fmt: skip


def to_ours(tensors: dict[str, np.ndarray]) -> dict:
    """Tensors by the official names as our parameters, flat."""
    blocks = sorted({int(name.split(".")[1]) for name in tensors})
    found = {}
    for name, value in tensors.items():
        _, block, subnet, what, *leaf = name.split(".")
        path = (f"blocks_{blocks.index(int(block))}", SUBNET[subnet])
        if what.startswith("gamma"):
            found[(*path, f"gamma_{what[-1]}")] = value.reshape(())
        elif leaf == ["weight"]:
            found[(*path, CONV[what], "kernel")] = value.transpose(2, 3, 1, 0)
        else:
            found[(*path, CONV[what], "bias")] = value
    return found


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("csflow")


@pytest.fixture(scope="module")
def features(golden):
    return [channels_last(golden[f"features/scale{i}"]) for i in range(SCALES)]


@pytest.fixture(scope="module")
def variables(golden):
    permutations = (golden[f"perms/scale{i}"].astype(np.int32) for i in range(SCALES))
    return {
        "params": traverse_util.unflatten_dict(to_ours(golden["params/"])),
        "memory": {f"permutations_{i}": x for i, x in enumerate(permutations)},
    }


def test_latents_map_and_score(golden, features, variables):
    class OnFeatures(CSFlow):
        def frozen_features(self, images):
            return features

    detector = OnFeatures(CONFIG)

    @jax.jit
    def run(variables, images):
        latents = detector.apply(variables, features, method="latents")
        return latents, detector.apply(variables, images)

    (latents, log_det), found = run(variables, np.zeros((3, 64, 64, 3), np.float32))
    z = {f"scale{i}": x for i, x in enumerate(latents)}
    expected = {name: channels_last(x) for name, x in golden["z/"].items()}
    golden.check("latents", z, expected, 1e-5)
    golden.check("log determinant", log_det, golden["log_det_by_scale"].sum(0), 1e-5)
    golden.check("score", found.score, golden["image_score"], 1e-5)
    golden.check("map", found.anomaly_map, golden["map64_of_scale0"], 1e-5)


def test_training(golden, features, variables):
    found = training.train(training.kept(CSFlow(CONFIG)), variables, 10 * [features])
    golden.check("loss", found.figure("loss")[0], golden["loss"], 1e-5)
    gradients = traverse_util.flatten_dict(found.gradients)
    norm = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in gradients.values()))
    assert golden["grad_norm"] < CONFIG.gradient_clip  # so that ours are not clipped either
    golden.check("norm of the gradient", np.float32(norm), golden["grad_norm"], 1e-5)
    golden.check("gradients of all parameters", gradients, to_ours(golden["grad/"]), 1e-4)
    golden.check("losses of 10 steps", found.figure("loss"), golden["losses10"], 1e-5)
    last = traverse_util.flatten_dict(found.states[-1]["params"])
    golden.check("parameters after 10 steps", last, to_ours(golden["after10/"]), 1e-4)
