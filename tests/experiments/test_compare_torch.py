"""Plain PyTorch does the same work as ours; skipped where PyTorch is not installed."""

import importlib

import jax
import numpy as np
import pytest

from imvad_jax.backbones import get
from imvad_jax.backbones.weights import load_weights
from imvad_jax.benchmarks import workloads
from tests.methods.small import fitted, images

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
compare_torch = importlib.import_module("imvad_jax.benchmarks.compare_torch")


def subject(method, **settings):
    detector, variables, parallel = fitted(method, count=10, devices=2, **settings)
    options = workloads.Options(repeats=2, least_seconds=0.0)
    return workloads.Subject(
        detector=detector, variables=variables, images=images(10), parallel=parallel, seed=0,
        options=options,
    )  # fmt: skip


AVERAGES = {"aggregation": "local_average", "embedding_dim": 384}  # layer3 has more than its share


@pytest.mark.parametrize(
    "method, settings", [("padim", {}), ("patchcore", {}), ("patchcore", AVERAGES)]
)
def test_maps_of_both_agree_and_all_parts_are_timed(method, settings):
    found = compare_torch.compare(subject(method, **settings))["parts"]
    assert list(found) == ["backbone", "fit", "score"]
    for part in found.values():
        assert part["ratio"] == pytest.approx(part["theirs_s"]["median"] / part["ours_s"]["median"])
    assert found["backbone"]["difference"] < 1e-4
    assert found["score"]["difference"] < 1e-3


def test_its_coreset_has_distinct_rows_of_the_patches():
    case = subject("patchcore")
    with torch.inference_mode():
        network = compare_torch.ResNet(
            case.variables["backbone"], case.detector.outputs, torch.device("cpu")
        )
        work = compare_torch.PatchCore(case, network)
        work.fit()
        assert work.bank.shape == (case.detector.bank_rows(10), case.detector.config.embedding_dim)
        assert len(torch.unique(work.bank, dim=0)) == len(work.bank)


@pytest.mark.slow
def test_a_bottleneck_network_agrees():
    outputs = ("layer1", "layer4")
    variables = load_weights(get("wide_resnet50_2"), "random", outputs).variables
    batch = images(2).images
    ours = get("wide_resnet50_2").build().apply(variables, batch / np.float32(255), outputs)
    with torch.inference_mode():
        theirs = compare_torch.ResNet(variables, outputs, torch.device("cpu"))(batch)
    for name in outputs:
        found = theirs[name].permute(0, 2, 3, 1).numpy()
        assert compare_torch.largest_difference(jax.device_get(ours[name]), found) < 1e-4
