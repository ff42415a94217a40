"""Fixed kernels are made ready where a detector is placed, change nothing, and are not kept."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from imvad_jax import api
from imvad_jax.export import whole
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.methods.base import Detector
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import Scorer, place
from imvad_jax.training.transformed import with_transformed, with_transformed_backbone
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


def test_they_are_neither_saved_nor_exported(padim, tmp_path):
    detector, variables = padim
    assert TRANSFORMED not in variables
    model = api.Model("padim", detector, variables, fitted=True)
    model.score(images(2, 1, 128).images)
    model.save(tmp_path)
    for kept in (model, api.load(tmp_path)):
        assert set(kept.variables) == {"backbone", "memory"}
        assert not any(name.startswith(TRANSFORMED) for name in whole.whole_of(kept).arrays)
