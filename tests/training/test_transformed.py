"""Fixed kernels are made ready where a detector is placed, change nothing, and are not kept."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from imvad_jax import api
from imvad_jax.export import whole
from imvad_jax.layers.conv import OUTPUTS, TRANSFORMED
from imvad_jax.methods.base import Detector
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import Scorer, place
from imvad_jax.training.transformed import (
    merged,
    shared_outputs,
    with_transformed,
    with_transformed_backbone,
)
from tests.methods.small import fitted, images, make

ONE = Parallel(jax.local_devices()[:1])
# Of 128 pixels the layers of a ResNet-18 are just large enough for Winograd.
LARGE = {"image_size": 128, "crop_size": 0, "layers": "layer1"}


@pytest.fixture(scope="module")
def padim() -> tuple[Detector, dict]:
    detector, variables, _ = fitted("padim", 8, **LARGE)
    return detector, variables


@pytest.fixture(scope="module")
def stpm() -> tuple[Detector, dict]:
    return make("stpm", **LARGE)


def names(variables) -> set[str]:
    return set(flatten_dict(variables.get(TRANSFORMED, {}), sep="/"))


def with_form(detector, name):
    return detector.clone(config=dataclasses.replace(detector.config, convolution=name))


def test_kernels_of_all_networks_that_score(stpm):
    found = names(with_transformed(*stpm, ONE))
    teacher = {f"backbone/layer1_{i}/conv{j}/kernel" for i in (0, 1) for j in (1, 2)}
    assert teacher < found and len(found) == 2 * len(teacher)
    assert names(with_transformed_backbone(*stpm, ONE)) == teacher


def test_none_where_nothing_uses_them(stpm):
    detector, variables = stpm
    for prepare in (with_transformed, with_transformed_backbone):
        assert prepare(with_form(detector, "xla"), variables, ONE) is variables
        gpu = types.SimpleNamespace(local=[types.SimpleNamespace(platform="gpu")])
        assert prepare(detector, variables, gpu) is variables


@pytest.mark.parametrize("method", ["padim", "stpm"])
def test_scores_are_the_same(method, request):
    detector, variables = request.getfixturevalue(method)
    batch = images(3, 1, 128).images
    scorer = Scorer(detector, variables, ONE)
    assert names(scorer._placed[0])
    plain = scorer._step(variables, batch)
    ready = scorer._step(*scorer._placed, batch)
    xla = Scorer(with_form(detector, "xla"), variables, ONE)
    assert not names(xla._placed[0])
    for other in (plain, xla._step(*xla._placed, batch)):
        for a, b in zip(ready, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * np.abs(b).max())


def test_on_two_devices(padim):
    detector, variables = padim
    batch = images(4, 2, 128)
    two = Parallel(jax.local_devices()[:2])
    assert names(place(detector, variables, two)[0]) == names(place(detector, variables, ONE)[0])
    for a, b in zip(*(Scorer(*padim, some).score(batch, 4) for some in (two, ONE)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("method, networks", [("__call__", 2), ("features", 1)])
def test_outputs_shared_by_two_devices(method, networks):
    # Of 128 pixels layer3 has four tiles of 256 channels.
    detector, variables = make("stpm", **LARGE | {"layers": "layer3"})
    two = Parallel(jax.local_devices()[:2])
    parts = shared_outputs(detector, variables, two, method)
    found = flatten_dict(parts[TRANSFORMED], sep="/")
    assert len(found) == 3 * networks and all(name.endswith(OUTPUTS) for name in found)
    assert {leaf.shape for leaf in found.values()} == {(2, 36, 128, 256)}
    name = "backbone/layer3_1/conv1/outputs"
    whole = with_transformed_backbone(detector, variables, ONE)
    kernel = flatten_dict(whole[TRANSFORMED], sep="/")[name.replace(OUTPUTS, "kernel")]
    joined = np.concatenate(np.asarray(found[name]), 1).swapaxes(1, 2)
    np.testing.assert_allclose(joined, kernel, rtol=0, atol=1e-6)
    assert not any(OUTPUTS in name for name in names(whole))
    assert shared_outputs(with_form(detector, "xla"), variables, two, method) == {}
    seven = types.SimpleNamespace(local=two.local, count=7)  # 256 are not a multiple of it
    assert shared_outputs(detector, variables, seven, method) == {}


def test_variables_with_parts():
    variables = {"params": {"a": {"kernel": 1}}, "batch_stats": {}}
    parts = {"params": {"a": {OUTPUTS: 2}}, "memory": {"bank": 3}}
    assert merged(variables, parts) == {
        "params": {"a": {"kernel": 1, OUTPUTS: 2}}, "batch_stats": {}, "memory": {"bank": 3},
    }  # fmt: skip
    assert merged(variables, {}) == variables


def test_they_are_neither_saved_nor_exported(padim, tmp_path):
    detector, variables = padim
    assert TRANSFORMED not in variables
    model = api.Model("padim", detector, variables, fitted=True)
    model.score(images(2, 1, 128).images)
    model.save(tmp_path)
    for kept in (model, api.load(tmp_path)):
        assert set(kept.variables) == {"backbone", "memory"}
        assert not any(name.startswith(TRANSFORMED) for name in whole.whole_of(kept).arrays)
