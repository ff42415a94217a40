"""Folds that share the backbone's maps give the scores of folds that compute them anew."""

import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax import api, methods
from imvad_jax.methods import given_maps
from imvad_jax.model.measure import measure_by_folds
from imvad_jax.training import maps
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images

COUNT = 7
NAMES = [str(number) for number in range(COUNT)]


def measured(model, few=None):
    """What folds of seven images give, and the labels of the progress."""
    shown = {}

    def progress(total, label):
        shown[label] = total
        return lambda done: None

    return measure_by_folds(model, few or images(COUNT), NAMES, 3, progress), shown


def unfitted(method, devices=2, **overrides):
    model = api.make(method, preset="smoke", weights="random", **overrides)
    return dataclasses.replace(model, parallel=Parallel(jax.local_devices()[:devices]))


def assert_as_computed_anew(model, monkeypatch):
    found, shown = measured(model)
    assert shown == {"features": COUNT, "calibrate": COUNT}
    monkeypatch.setattr(maps, "MOST_BYTES", 0)
    expected, shown = measured(model)
    assert shown == {"calibrate": COUNT}
    assert expected.scores.std() > 0.01 * expected.scores.mean()
    for name in ("scores", "maxima", "medians"):
        one, other = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(one, other, rtol=1e-4, err_msg=name)
    assert found.names == expected.names and found.copies == expected.copies == 0


@pytest.mark.parametrize("devices", [1, 2])
def test_padim(devices, monkeypatch):
    assert_as_computed_anew(unfitted("padim", devices), monkeypatch)


@pytest.mark.parametrize("shard_bank", [False, True])
def test_patchcore(shard_bank, monkeypatch):
    assert_as_computed_anew(unfitted("patchcore", shard_bank=shard_bank), monkeypatch)


def test_spade(monkeypatch):
    assert_as_computed_anew(unfitted("spade"), monkeypatch)


def test_without_a_backbone_nothing_is_kept():
    model = api.make("raw_color", preset="smoke")
    assert maps.maps_bytes(model.detector, COUNT) == 0
    assert measured(model)[1] == {"calibrate": COUNT}


def test_no_more_is_kept_than_the_limit(monkeypatch):
    detector = unfitted("padim").detector
    one = sum(int(np.prod(shape)) for shape in detector.feature_shapes().values()) * 4
    monkeypatch.setattr(maps, "MOST_BYTES", COUNT * one)
    assert maps.maps_bytes(detector, COUNT) == COUNT * one
    assert maps.maps_bytes(detector, COUNT + 1) == 0


class Mirrored(methods.METHODS["padim"].detector):
    """A method that asks for features of images other than its own."""

    def embed(self, images):
        return super().embed(images[:, :, ::-1])


def test_a_method_that_changes_its_images_computes_their_features(monkeypatch):
    plain = unfitted("padim")
    mirrored = dataclasses.replace(plain, detector=Mirrored(plain.detector.config))
    few = images(COUNT)
    found, shown = measured(mirrored, few)
    assert shown == {"features": COUNT, "calibrate": COUNT}
    monkeypatch.setattr(maps, "MOST_BYTES", 0)
    np.testing.assert_allclose(found.scores, measured(mirrored, few)[0].scores, rtol=1e-6)
    assert np.abs(found.scores / measured(plain, few)[0].scores - 1).max() > 1e-3


def test_other_layers_are_refused():
    one = np.zeros((1, 2, 2, 3))
    with given_maps.given(one, {"layer1": one}):
        assert given_maps.find(one, ["layer1"])["layer1"] is one
        with pytest.raises(given_maps.OtherImages):
            given_maps.find(one, ["layer1", "layer2"])
        with pytest.raises(given_maps.OtherImages):
            given_maps.find(one.copy(), ["layer1"])
    assert given_maps.find(one, ["layer1"]) is None


def test_taken_images_keep_their_maps():
    few = images(4)
    own = {"layer1": np.arange(4.0).reshape(4, 1, 1, 1)}
    some = maps.MappedImages(few, own, np.arange(4)).take(np.array([3, 1, 2]))
    assert len(some) == 3
    first, last = some.take(np.array([2, 0, 1])).batches(2)
    assert first.images.maps["layer1"].ravel().tolist() == [2, 3]
    assert last.images.maps["layer1"][0] == 1 and last.valid.tolist() == [True, False]
    np.testing.assert_array_equal(first.images.images, few.images[[2, 3]])
