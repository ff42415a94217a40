"""Training steps in plain PyTorch have our loss; skipped where PyTorch is not installed."""

import importlib

import jax
import numpy as np
import pytest

from imvad_jax.benchmarks import workloads
from imvad_jax.errors import UserError
from imvad_jax.training.parallel import Parallel
from tests.methods.small import fitted, images

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
steps = importlib.import_module("imvad_jax.benchmarks.compare_torch_steps")


def subject(method):
    detector, variables, _ = fitted(method, count=8, devices=1)
    options = workloads.Options(repeats=1, least_seconds=0.0)
    parallel = Parallel(jax.local_devices()[:1])
    return workloads.Subject(detector, variables, images(8), parallel, 0, options)


@pytest.mark.parametrize("method", ["stpm", "rd4ad", "fastflow"])
def test_loss_is_ours_and_falls(method):
    torch.set_num_threads(1)
    case = subject(method)
    network = steps.ResNet(
        case.variables["backbone"], case.detector.outputs, torch.device("cpu")
    )
    step = steps.Step(case, case.variables, network, lambda loss: loss)
    expected = steps.our_loss(case, case.variables)
    losses = [float(step()) for _ in range(4)]
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_a_method_that_is_not_built_is_refused():
    with pytest.raises(UserError, match="PaDiM with resnet18 is not built here"):
        steps.compare(subject("padim"))
