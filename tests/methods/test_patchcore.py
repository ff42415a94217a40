"""PatchCore against its definition in float64."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.errors import UserError
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.methods.patchcore import PatchCoreConfig
from imvad_jax.ops import resample
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import place, score
from tests.methods.small import apply, fitted, images


def embed(detector, variables, array):
    found = apply(detector, variables, array.images.astype(np.float32) / 255, method="embed")
    return np.asarray(found, np.float64)


def bank_of(variables):
    memory = variables["memory"]
    return np.asarray(memory["bank"][: memory["bank_count"]] + memory["center"], np.float64)


@pytest.fixture(scope="module", params=[1, 8])
def case(request):
    detector, variables, _ = fitted("patchcore", count=24, devices=request.param)
    return detector, variables


def test_bank_holds_distinct_training_patches(case):
    detector, variables = case
    train = embed(detector, variables, images(24)).reshape(-1, detector.config.embedding_dim)
    bank = bank_of(variables)
    assert len(bank) == int(len(train) * 0.1)
    distances = np.linalg.norm(bank[:, None] - train[None], axis=-1)
    assert distances.min(1).max() < 1e-3
    assert len(set(distances.argmin(1).tolist())) == len(bank)


def test_score_and_map_are_squared_distances_to_the_bank(case):
    detector, variables = case
    test = embed(detector, variables, images(3, 1))
    distances = ((test[:, :, None] - bank_of(variables)[None, None]) ** 2).sum(-1).min(-1)
    prediction = apply(detector, variables, images(3, 1).images.astype(np.float32) / 255)
    np.testing.assert_allclose(prediction.score, distances.max(1), rtol=1e-3)
    side = int(distances.shape[1] ** 0.5)
    maps = resample.upsample_and_smooth(distances.reshape(3, side, side), (64, 64), 4.0)
    np.testing.assert_allclose(prediction.anomaly_map, maps, rtol=1e-2)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_papers_local_average_and_the_score_of_the_map(devices):
    detector, variables, parallel = fitted(
        "patchcore", devices=devices, aggregation="local_average", image_score="map",
        embedding_dim=512,
    )  # fmt: skip
    batch = images(3, 1).images.astype(np.float32) / 255
    maps = apply(detector, variables, batch, method="features")
    parts = []
    for name, channels in (("layer2", 128), ("layer3", 256)):
        part = ndimage.uniform_filter(np.asarray(maps[name]), (1, 3, 3, 1), mode="constant")
        part = np.asarray(resample.resize_bilinear(part, detector.grid), np.float64)
        parts.append(part * np.sqrt(256 / channels))
    expected = np.concatenate(parts, -1).reshape(3, -1, 128 + 256)
    test = embed(detector, variables, images(3, 1))
    np.testing.assert_allclose(test, expected, atol=1e-4)
    assert detector.dim == bank_of(variables).shape[1] == 384
    distances = ((expected[:, :, None] - bank_of(variables)[None, None]) ** 2).sum(-1).min(-1)
    found = score(detector, variables, images(3, 1), parallel)
    maps = resample.upsample_and_smooth(distances.reshape(3, *detector.grid), (64, 64), 4.0)
    np.testing.assert_allclose(found.maps, maps, rtol=1e-2)
    np.testing.assert_array_equal(found.image, found.maps.max((1, 2)))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"aggregation": "mean"}, "aggregation: unknown value 'mean'"),
        ({"image_score": "pixel"}, "image_score: unknown value 'pixel'"),
        ({"image_score": "map", "reweight_neighbors": 3}, "reweight_neighbors=3"),
    ],
)
def test_impossible_choices(settings, message):
    with pytest.raises(UserError, match=message):
        PatchCoreConfig(**settings)


@pytest.mark.parametrize("layers", ["layer2,layer3", "layer3,layer2", "layer2,layer3,layer1"])
def test_on_processors_as_in_the_plain_form(layers):
    """Smaller maps are met by the bank at their own size; larger ones are reduced before."""
    width = 128 if layers.count(",") == 1 else 96
    detector, variables, _ = fitted("patchcore", layers=layers, embedding_dim=width)
    kept = place(detector, variables, Parallel(jax.devices()[:1]))[0]
    memory = kept["memory"]
    norms = np.asarray(memory["bank"] ** 2).sum(-1)
    np.testing.assert_allclose(kept[TRANSFORMED]["bank_norms"], norms, rtol=1e-5)
    kept = kept | {TRANSFORMED: {"bank_norms": kept[TRANSFORMED]["bank_norms"]}}
    plain = detector.clone(config=dataclasses.replace(detector.config, convolution="xla"))
    batch = images(3, 1).images.astype(np.float32) / 255
    found, expected = (jax.jit(d.apply)(kept, batch) for d in (detector, plain))
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-4)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, rtol=1e-3)


def test_a_bank_in_parts_gives_what_one_device_gives():
    detector, variables, _ = fitted("patchcore", count=24)
    memory = variables["memory"]
    bank = memory["bank"][: memory["bank_count"]]  # no padding, so that every part is searched
    variables = variables | {"memory": memory | {"bank": bank}}
    config = dataclasses.replace(detector.config, shard_bank=True)
    in_parts, parallel = detector.clone(config=config), Parallel(jax.devices()[:8])
    _, parts = place(in_parts, variables, parallel)
    shards = parts["memory"]["bank"].addressable_shards
    assert {shard.data.shape[1] for shard in shards} == {-(-len(bank) // 8)}
    one, eight = (
        score(d, variables, images(5, 1), p, batch_size=8)
        for d, p in ((detector, Parallel(jax.devices()[:1])), (in_parts, parallel))
    )
    np.testing.assert_allclose(eight.image, one.image, rtol=1e-5)
    np.testing.assert_allclose(eight.maps, one.maps, rtol=1e-4, atol=1e-5 * one.maps.max())
    with pytest.raises(UserError, match="shard_bank"):
        PatchCoreConfig(shard_bank=True, num_neighbors=2)


def test_of_many_images_a_share_of_the_patches_is_kept_evenly():
    """All of the 24 x 16 patches kept are in the bank: each position as often as any other."""
    detector, variables, _ = fitted(
        "patchcore", count=24, patches_per_image=16, coreset_ratio=1, devices=2
    )
    train = embed(detector, variables, images(24))
    bank = bank_of(variables)
    assert len(bank) == 24 * 16
    distances = ((bank[:, None] - train.reshape(1, -1, train.shape[-1])) ** 2).sum(-1)
    image, position = np.divmod(distances.argmin(1), train.shape[1])
    assert distances.min(1).max() < 1e-5
    assert np.bincount(image).tolist() == [16] * 24
    assert np.bincount(position).tolist() == [24 * 16 // train.shape[1]] * train.shape[1]
    (note,) = detector.config.notes
    assert "APPROXIMATE" in note and "16 patches" in note
    assert not PatchCoreConfig().notes


def test_several_neighbours_are_averaged():
    detector, variables, _ = fitted("patchcore", num_neighbors=3)
    test = embed(detector, variables, images(2, 1))
    distances = ((test[:, :, None] - bank_of(variables)[None, None]) ** 2).sum(-1)
    expected = np.sort(distances, -1)[..., :3].mean(-1).max(1)
    prediction = apply(detector, variables, images(2, 1).images.astype(np.float32) / 255)
    np.testing.assert_allclose(prediction.score, expected, rtol=1e-3)


def test_reweighting_is_equation_7():
    detector, variables, _ = fitted("patchcore", reweight_neighbors=4)
    bank = bank_of(variables)
    prediction = apply(detector, variables, images(3, 1).images.astype(np.float32) / 255)
    for patches, found in zip(embed(detector, variables, images(3, 1)), prediction.score):
        distances = np.linalg.norm(patches[:, None] - bank[None], axis=-1)
        query = patches[distances.min(1).argmax()]
        to_query = np.linalg.norm(bank - query, axis=-1)
        nearest = to_query.argmin()
        around = np.argsort(np.linalg.norm(bank - bank[nearest], axis=-1))[:4]
        weight = 1 - np.exp(to_query[nearest]) / np.exp(to_query[around]).sum()
        np.testing.assert_allclose(found, weight * to_query[nearest], rtol=1e-2)


@pytest.mark.parametrize("ratio", [0.0, 1.5, -0.1])
def test_impossible_ratio(ratio):
    with pytest.raises(UserError, match="coreset_ratio"):
        PatchCoreConfig(coreset_ratio=ratio)
