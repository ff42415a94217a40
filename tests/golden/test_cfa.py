"""CFA against sungwool/CFA_for_anomaly_localization: centres, maps, six steps of its training."""

import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax.methods.cfa import CFA, CFAConfig
from tests.golden import resnets, training
from tests.golden.files import as_double, as_float, channels_last, images, recipe

CONFIG = CFAConfig(backbone="resnet18", image_size=64, crop_size=0)
GOOD = images(8, 64, 31)


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("cfa")


def parameters(radius: float) -> dict:
    kernel = recipe("layer.conv.weight", (448, 450, 1, 1), "cfa.").transpose(2, 3, 1, 0)
    bias = recipe("layer.conv.bias", (448,), "cfa.")
    descriptor = {"conv": {"kernel": kernel, "bias": bias}}
    return {"descriptor": descriptor, "hyperspheres": {"radius": np.float32(radius)}}


@pytest.fixture(scope="module")
def variables():
    """With the centres of the untrained descriptor; the radius as CFA starts it."""
    backbone = resnets.variables("resnet18", CFA(CONFIG).outputs)
    variables = {"backbone": backbone, "params": parameters(1e-5)}
    return training.gathered(CFA(CONFIG), variables, GOOD)


def test_centres_descriptor_map_and_score(golden, variables):
    detector = CFA(CONFIG)

    @jax.jit
    def run(variables, good, test):
        features = detector.apply(variables, good, ("layer3_pre",), method="features")
        return (
            features,
            detector.apply(variables, good, method="embed"),
            detector.apply(variables, test),
        )

    features, descriptors, found = run(variables, as_float(GOOD[:2]), as_float(images(3, 64, 32)))
    layer3 = jax.nn.leaky_relu(features["layer3_pre"], 0.01)
    golden.check("feature layer3", layer3, channels_last(golden["feature_layer3"]), 1e-5)
    first = descriptors[:1].reshape(1, 16, 16, -1)
    golden.check("descriptor", first, channels_last(golden["descriptor"]), 1e-5)
    golden.check("centres", variables["memory"]["centers"], golden["centers"], 1e-5)
    golden.check("map", found.anomaly_map, golden["map"], 1e-4)
    golden.check("score", found.score, golden["score"], 1e-4)


def trained(detector, variables, pictures):
    """Six steps on the patches of the good images, four at a time."""
    frozen = jax.jit(lambda v, x: detector.apply(v, x, method="frozen_features"))
    batches = [frozen(variables, part) for part in (pictures[:4], pictures[4:])]
    return training.train(detector, variables, 3 * batches)


def check_gradients(golden, found, prefix, name):
    descriptor, radius = (found.gradients[part] for part in ("descriptor", "hyperspheres"))
    expected = golden[f"{prefix}grad_bias"]
    golden.check(f"gradient of the bias{name}", descriptor["conv"]["bias"], expected, 1e-4)
    radius = np.reshape(radius["radius"], 1)
    golden.check(f"gradient of the radius{name}", radius, golden[f"{prefix}grad_r"], 1e-4)
    radii = np.array([found.states[i]["params"]["hyperspheres"]["radius"] for i in (0, 5)])
    golden.check(f"radius after 1 and 6 steps{name}", radii, golden[f"{prefix}r_after"], 1e-4)


def test_training_where_centres_attract(golden, variables):
    found = trained(training.kept(CFA(CONFIG)), variables, as_float(GOOD))
    golden.check("losses of 6 steps", found.figure("loss"), golden["losses"], 1e-4)
    check_gradients(golden, found, "", "")
    rows = found.gradients["descriptor"]["conv"]["kernel"][0, 0].T[::64]
    golden.check("gradient of the kernel", rows, golden["grad_weight_rows"], 1e-4)
    last = found.states[-1]["params"]["descriptor"]["conv"]
    rows = last["kernel"][0, 0].T[::64]
    golden.check("kernel after 6 steps", rows, golden["step6_weight_rows"], 1e-4)
    golden.check("bias after 6 steps", last["bias"], golden["step6_bias"], 1e-4)


def test_training_where_they_repel_as_well(golden, variables):
    with jax.enable_x64(True):
        detector = training.kept(CFA(dataclasses.replace(CONFIG, dtype="float64")))
        double, pictures = as_double(variables), as_float(GOOD, np.float64)
        embed = jax.jit(lambda v, x: detector.apply(v, x, method="embed"))
        double["memory"] = {"centers": np.asarray(embed(double, pictures)).mean(0)}
        double["params"] = as_double(parameters(7.0))
        found = trained(detector, double, pictures)
    name, expected = " (radius 7)", golden["rep_losses_float64"]
    golden.check(f"losses of 6 steps{name}", found.figure("loss"), expected, 1e-9)
    check_gradients(golden, found, "rep_", name)
