"""STPM against gdwang08/STFPM: maps of both networks, and six steps of its training."""

import jax
import numpy as np
import pytest

from imvad_jax.methods.stpm import STPM, STPMConfig
from tests.golden import resnets, training
from tests.golden.files import as_double, as_float, channels_last, images


@pytest.fixture(scope="module")
def golden(load_golden):
    return load_golden("stpm")


@pytest.fixture(scope="module")
def variables():
    layers = STPMConfig().layers
    student = resnets.variables("resnet18", layers, "student.")
    return {name: {"student": value} for name, value in student.items()} | {
        "backbone": resnets.variables("resnet18", layers)
    }


def test_map_and_score(golden, variables):
    detector = STPM(STPMConfig())

    @jax.jit
    def run(variables, x):
        def student(detector, x):
            return detector.student(x, outputs=("layer1",))["layer1"]

        found = detector.apply(variables, x)
        teacher = detector.apply(variables, x, method="features")
        return found, teacher["layer3"], detector.apply(variables, x, method=student)

    found, teacher, student = run(variables, as_float(images(2, 256, 11)))
    golden.check(
        "teacher's layer3", teacher[..., ::4], channels_last(golden["teacher_layer3"]), 1e-5
    )
    golden.check(
        "student's layer1", student[:1, ..., ::8], channels_last(golden["student_layer1"]), 1e-5
    )
    golden.check("map", found.anomaly_map, golden["map"], 1e-5)
    golden.check("score", found.score, golden["score"], 1e-5)


def test_training(golden, variables):
    with jax.enable_x64(True):
        detector = training.kept(STPM(STPMConfig(image_size=64, batch_size=4, dtype="float64")))
        double = as_double(variables)
        pictures = as_float(images(8, 64, 12), np.float64)
        frozen = jax.jit(lambda v, x: detector.apply(v, x, method="frozen_features"))
        batches = [frozen(double, pictures[:4]), frozen(double, pictures[4:])]
        found = training.train(detector, double, 3 * batches)
    golden.check("losses of 6 steps", found.figure("loss"), golden["losses_float64"], 1e-9)
    gradients = resnets.by_torch_name(found.gradients["student"])
    golden.check(
        "norms of all gradients", resnets.norms(gradients),
        dict(zip(golden["grad_names"], golden["grad_norms"], strict=True)), 1e-5,
    )  # fmt: skip
    golden.check("gradient of conv1", gradients["conv1.weight"], golden["grad_conv1"], 5e-5)
    golden.check(
        "gradient of layer3.1.bn2", gradients["layer3.1.bn2.weight"],
        golden["grad_layer3_1_bn2"], 5e-5,
    )  # fmt: skip
    params = resnets.by_torch_name(found.states[0]["params"]["student"])
    statistics = resnets.by_torch_name(found.states[0]["batch_stats"]["student"])
    golden.check("conv1 after 1 step", params["conv1.weight"], golden["step1_conv1"], 1e-5)
    golden.check(
        "running mean after 1 step", statistics["layer3.1.bn2.running_mean"],
        golden["step1_layer3_1_bn2_mean"], 1e-5,
    )  # fmt: skip
    variances = {"bn1": "step1_bn1_var", "layer3.1.bn2": "step1_layer3_1_bn2_var"}
    golden.check(
        "running variances after 1 step",
        {name: statistics[f"{name}.running_var"] for name in variances},
        {name: golden[key] for name, key in variances.items()},
        1e-5,
    )
    last = resnets.by_torch_name(found.states[-1]["params"]["student"])
    golden.check("conv1 after 6 steps", last["conv1.weight"], golden["step6_conv1_float64"], 1e-9)
