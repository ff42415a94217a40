"""What every method promises, tested on all of them alike."""

import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax import methods, presets
from imvad_jax.data.batches import ArrayImages
from imvad_jax.errors import UserError
from imvad_jax.ops.collectives import AXIS
from imvad_jax.training import checkpoint
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from imvad_jax.training.timing import COMPILES
from tests.methods.small import briefly, fitted, fitted_once, images, make

ALL = sorted(methods.METHODS)
LANCZOS = {"resize": "lanczos", "mask_rule": "nearest"}
# What the preset `official` has besides the defaults, which keep the figures of before.
OFFICIAL = {
    "cfa": LANCZOS,
    "cutpaste": {"hard_edges": True},
    "draem": {"texture_sharpness": 2.0},
    "favae": {"steps_per_epoch": 125},
    "padim": LANCZOS | {"channels": "padim_1024"},
    "patchcore": {"mask_rule": "full"},
    "spade": LANCZOS,
}
# Trained methods drift apart in float32 by nature; tests/training holds what is promised of them.
TRAINED = [m for m in ALL if "gradient" in methods.get(m).detector.phases]
STATISTICS = [m for m in ALL if methods.get(m).detector.phases == ("statistics",)]


# As many as `fitted` takes, so that all tests share the compiled programs of a training.
TWO = Parallel(jax.local_devices()[:2])


def scores_of(detector, variables, test, devices=1, batch_size=None):
    parallel = Parallel(jax.local_devices()[:devices])
    return score(detector, variables, test, parallel, batch_size)


@pytest.mark.parametrize("method", ALL)
def test_prediction_shapes_and_padding(method):
    detector, variables, _ = fitted_once(method)
    count = detector.config.batch_size + 1  # a whole batch and one that is nearly all padding
    found = scores_of(detector, variables, images(count, 1))
    assert found.image.shape == (count,) and np.isfinite(found.image).all()
    if found.maps is not None:
        assert found.maps.shape == (count, *images(1).images.shape[1:3])
        assert np.isfinite(found.maps).all()


@pytest.mark.parametrize("method", ALL)
def test_scores_are_the_same_in_batches_of_one_and_of_many(method):
    detector, variables, _ = fitted_once(method)
    one = scores_of(detector, variables, images(7, 1), batch_size=1)
    many = scores_of(detector, variables, images(7, 1))
    np.testing.assert_allclose(one.image, many.image, rtol=1e-5)
    if one.maps is not None:
        largest = np.abs(one.maps).max()
        np.testing.assert_allclose(one.maps, many.maps, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize(("method", "array"), [("patchcore", "bank"), ("spade", "pooled")])
def test_without_its_padding_the_memory_gives_the_same_scores(method, array):
    detector, variables, _ = fitted_once(method)
    less = detector.trim_memory(variables)
    count = variables["memory"]["bank_count" if array == "bank" else "count"]
    assert len(variables["memory"][array]) > len(less["memory"][array]) == count
    whole, trimmed = (scores_of(detector, v, images(5, 1)) for v in (variables, less))
    np.testing.assert_allclose(trimmed.image, whole.image, rtol=1e-5)
    np.testing.assert_allclose(trimmed.maps, whole.maps, atol=1e-5 * whole.maps.max())


# What an image's score is with each choice of `image_score`; the first is the default.
IMAGE_SCORES = {
    "cutpaste": ("map", "patch"),
    "padim": ("map", "patch"),
    "patchcore": ("patch", "map"),
    "spade": ("neighbors", "map"),
}


@pytest.mark.parametrize("method", IMAGE_SCORES)
def test_the_score_of_the_map_is_its_largest_value(method):
    overrides = {"patch_size": 32, "patch_stride": 8} if method == "cutpaste" else {}
    detector, variables, _ = fitted(method, **overrides)
    found = {}
    for choice in IMAGE_SCORES[method]:
        config = dataclasses.replace(detector.config, image_score=choice)
        found[choice] = scores_of(detector.clone(config=config), variables, images(3, 1))
    default, other = (found[choice] for choice in IMAGE_SCORES[method])
    assert detector.config.image_score == IMAGE_SCORES[method][0]
    np.testing.assert_array_equal(default.maps, other.maps)
    np.testing.assert_allclose(found["map"].image, found["map"].maps.max((1, 2)), rtol=1e-6)
    assert np.abs(default.image / other.image - 1).min() > 1e-3
    if "patch" in found:  # smoothing takes from the largest value
        assert (found["patch"].image > found["map"].image).all()


@pytest.mark.parametrize("method", IMAGE_SCORES)
def test_records_of_before_mean_the_scores_of_before(method):
    config = dataclasses.asdict(methods.get(method).config())
    added = {name: config.pop(name) for name in ("image_score", "aggregation") if name in config}
    record = methods.with_newer_fields({"method": method, "config": config})
    assert record["config"] == config | added
    assert added.pop("image_score") == IMAGE_SCORES[method][0]
    assert added == ({"aggregation": "official"} if method == "patchcore" else {})


@pytest.mark.parametrize("method", ALL)
def test_a_rerun_is_bit_identical(method):
    _, first, _ = fitted_once(method)
    _, second, _ = fitted(method)
    jax.tree.map(np.testing.assert_array_equal, first, second)


class Stopped(Exception):
    """What the hook of the next test raises."""


@pytest.mark.parametrize("method", ALL)
def test_stopped_within_any_stage_it_resumes_to_the_same(method, tmp_path):
    detector, variables = briefly(*make(method), epochs=2)

    def run(name, stop_in=None):
        labels = {}

        def progress(total, label):
            labels[label] = 0

            def done(count):
                labels[label] += count
                if label == stop_in and 2 * labels[label] > total:
                    raise Stopped

            return done

        checkpoints = checkpoint.TrainingCheckpoints(tmp_path / name)
        try:
            options = {"progress": progress, "checkpoints": checkpoints}
            return fit(detector, variables, images(20), TWO, **options), labels
        finally:
            checkpoints.close()

    whole, labels = run("whole")
    for label in labels:
        with pytest.raises(Stopped):
            run(label, stop_in=label)
        resumed, again = run(label)
        jax.tree.map(np.testing.assert_array_equal, whole, resumed)
        if label == "train":  # the first epoch was not trained again
            assert again[label] == labels[label] // 2


@pytest.mark.parametrize("method", STATISTICS)
def test_one_and_eight_devices_agree(method):
    detector, one, _ = fitted(method, devices=1)
    _, eight, _ = fitted(method, devices=8)
    a = scores_of(detector, one, images(9, 1))
    b = scores_of(detector, eight, images(9, 1), devices=8)
    np.testing.assert_allclose(a.image, b.image, rtol=1e-4)
    np.testing.assert_allclose(a.maps, b.maps, rtol=1e-3, atol=1e-4 * np.abs(a.maps).max())


@pytest.mark.slow
@pytest.mark.parametrize("method", TRAINED)
def test_the_mean_loss_over_devices_is_that_of_the_batch(method):
    detector, variables, _ = fitted_once(method)
    batch = images(8, 1).images.astype(np.float32) / 255

    def loss(part):
        return detector.apply(
            variables, part, method="image_loss", mutable=["batch_stats"],
            rngs={"noise": jax.random.key(0)},
        )  # fmt: skip

    (whole, _), _ = jax.jit(loss)(batch)
    (parts, _), changed = jax.pmap(loss, axis_name=AXIS)(batch.reshape(4, 2, *batch.shape[1:]))
    np.testing.assert_allclose(parts.mean(), whole, rtol=1e-4)
    for leaf in jax.tree.leaves(changed):  # batch statistics are those of the whole batch
        np.testing.assert_array_equal(leaf[0], leaf[3])


@pytest.mark.parametrize("method", ALL)
def test_checkpoint_round_trip_from_two_devices_to_one(method, tmp_path):
    detector, variables, _ = fitted_once(method)
    checkpoint.save_variables(tmp_path, variables)
    restored = checkpoint.load_variables(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(variables), restored)
    a = scores_of(detector, variables, images(3, 1))
    b = scores_of(detector, restored, images(3, 1))
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("method", ALL)
def test_a_second_category_compiles_nothing(method):
    detector, variables = briefly(*make(method))

    def run(count, seed):
        found = fit(detector, variables, images(count, seed), TWO, seed)
        return scores_of(detector, found, images(5, seed + 1))

    run(20, 0)
    before = COMPILES.programs
    run(33, 5)
    assert COMPILES.programs == before


# After the 15 epochs of its preset DRAEM finds the defect on some processors and seeds only; after
# these it did with a wide margin for three seeds.
LONGER = {"draem": {"epochs": 30, "learning_rate": 1e-3, "own_textures": 0.5}}


@pytest.mark.parametrize("method", ALL)
def test_a_defect_scores_higher_than_a_good_part_and_is_found_where_it_is(method):
    detector, variables = make(method, **LONGER.get(method, {}))
    rng = np.random.default_rng(0)
    base = images(1).images[0].astype(int)
    good = np.clip(base + rng.integers(-8, 9, (40, *base.shape)), 0, 255).astype(np.uint8)
    variables = fit(detector, variables, ArrayImages(good[:30]), TWO)
    bad = good[30:].copy()
    bad[:, 8:24, 40:56] = 255 - bad[:, 8:24, 40:56]
    clean = scores_of(detector, variables, ArrayImages(good[30:]))
    found = scores_of(detector, variables, ArrayImages(bad))
    assert found.image.min() > clean.image.max()
    if found.maps is not None:
        rise = (found.maps - clean.maps).mean(0)
        assert rise[8:24, 40:56].mean() > 3 * rise[40:, :24].mean()


@pytest.mark.parametrize("method", ALL)
def test_one_image_is_enough_to_fit(method):
    detector, variables, _ = fitted(method, count=1)
    assert np.isfinite(scores_of(detector, variables, images(2, 1)).image).all()


def test_no_images_to_fit_on():
    detector, variables = make("padim")
    empty = ArrayImages(np.zeros((0, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="no good images"):
        fit(detector, variables, empty, Parallel(jax.local_devices()[:1]))


@pytest.mark.parametrize("method", ALL)
def test_every_preset_is_a_configuration_of_the_method(method):
    found = presets.of(method)
    assert {"official", "benchmark", "cpu", "smoke"} <= set(found)
    assert all(type(c) is methods.get(method).config for c in found.values())
    official = dataclasses.replace(methods.get(method).config(), **OFFICIAL.get(method, {}))
    assert found["official"] == official
    for config in found.values():
        assert sum(methods.make(method, config).memory_estimate(200, 2).values()) > 0


def test_unknown_method_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'patchcore'"):
        methods.get("patchcor")
