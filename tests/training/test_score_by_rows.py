"""Few images scored by rows have the scores of whole batches, and one program a number of them."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from imvad_jax import api
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import Scorer
from imvad_jax.training.timing import COMPILES
from tests.golden.files import as_double
from tests.methods.small import fitted, fitted_once, images, make

TWO = Parallel(jax.local_devices()[:2])
FEW = [1, 3]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


@contextlib.contextmanager
def exactly(variables):
    """The variables, a memory of distances in float64 while the context lasts.

    PatchCore subtracts squared norms that are ten times as large as its distances, so that their
    rounding in float32 comes close to the tolerance, whichever way an image is computed.
    """
    with jax.enable_x64(True):
        yield variables | {"memory": as_double(variables["memory"])}


def by_whole_images(scorer, few):
    """Scores of these images, fewer than four, in a batch of four split image by image."""
    batch = np.concatenate([few, np.zeros((4 - len(few), *few.shape[1:]), few.dtype)])
    found = scorer._step(*scorer._placed, scorer.parallel.split(batch))
    return [scorer.parallel.join(part)[: len(few)] for part in found]


@pytest.mark.parametrize("method, count", [("padim", 3), ("patchcore", 1), ("stpm", 1), ("cfa", 1)])
def test_scores_are_those_of_whole_images(method, count):
    scorer = Scorer(*fitted_once(method)[:2], TWO)
    few = images(count, 1)
    assert scorer.batch_size(count=count) == count
    assert_same(scorer.score(few), by_whole_images(scorer, few.images))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spade", "rd4ad", "fastflow"])
def test_more_methods(method):
    test_scores_are_those_of_whole_images(method, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"reweight_neighbors": 3}, {"shard_bank": True}, {"num_neighbors": 2},
        {"image_score": "map"},
    ],
)  # fmt: skip
def test_patchcores_other_scores(changes):
    detector, variables, _ = fitted_once("patchcore")
    detector = detector.clone(config=dataclasses.replace(detector.config, **changes))
    few = images(1, 1)
    with exactly(variables) as variables:
        scorer = Scorer(detector, variables, TWO)
        assert_same(scorer.score(few), by_whole_images(scorer, few.images))


@pytest.mark.parametrize("method, choice", [("padim", "patch"), ("spade", "map")])
def test_other_image_scores(method, choice):
    detector, variables, _ = fitted_once(method)
    detector = detector.clone(config=dataclasses.replace(detector.config, image_score=choice))
    scorer = Scorer(detector, variables, TWO)
    few = images(1, 1)
    assert_same(scorer.score(few), by_whole_images(scorer, few.images))


def test_patchcores_local_average():
    detector, variables, _ = fitted("patchcore", aggregation="local_average")
    scorer = Scorer(detector, variables, TWO)
    few = images(1, 1)
    assert scorer._by_rows is not None
    assert_same(scorer.score(few), by_whole_images(scorer, few.images))


@pytest.mark.parametrize("backbone", ["vgg16", "efficientnet_lite0", "tf_efficientnet_b5"])
def test_other_backbones(backbone):
    detector, variables = make("padim", backbone=backbone, layers="layer1,layer2", num_channels=8)
    positions, dim = detector.grid[0] * detector.grid[1], detector.dim
    draws = np.random.default_rng(0)
    fitted = {
        "mean": draws.normal(size=(positions, dim)).astype(np.float32),
        "whitening": draws.normal(size=(positions, dim, dim)).astype(np.float32),
    }
    variables = variables | {"memory": variables["memory"] | fitted}
    scorer = Scorer(detector, variables, TWO)
    few = images(1, 1)
    assert scorer._by_rows
    assert_same(scorer.score(few), by_whole_images(scorer, few.images))


def test_a_model_compiles_once_for_each_number():
    detector, variables, _ = fitted_once("padim")
    model = api.Model("padim", detector, variables, fitted=True, parallel=TWO)
    first = {count: model.score(images(count, 2).images) for count in FEW}
    programs = COMPILES.programs
    for count in FEW:
        assert_same(model.score(images(count, 2).images), first[count])
    again = dataclasses.replace(model)
    assert_same(again.score(images(1, 2).images), first[1])
    assert COMPILES.programs == programs
    assert "_placed" not in vars(model.scorer)  # nothing lies on the devices that is not used


def test_whole_images_where_rows_do_not_split():
    # Of 48 pixels layer3 has three rows.
    detector, variables = make("stpm", image_size=48, layers="layer3")
    scorer = Scorer(detector, variables, TWO)
    assert scorer._by_rows is None and scorer.batch_size(1, count=1) == 2
    few = images(1, 1, 48)
    assert_same(scorer.score(few), by_whole_images(scorer, few.images))


@pytest.mark.parametrize("method", ["draem", "cutpaste"])  # without a backbone, and one trained on
def test_whole_images_where_nothing_is_computed_by_rows(method):
    scorer = Scorer(*make(method), TWO)
    assert scorer._by_rows is None and scorer.batch_size(count=1) % 2 == 0


def test_which_numbers_of_images_share_rows():
    four = Parallel(jax.local_devices()[:4])
    assert [n for n in range(1, 9) if TWO.shares_rows(n, True)] == [1, 3]
    assert [n for n in range(1, 9) if TWO.shares_rows(n, False)] == [1]
    assert [n for n in range(1, 9) if four.shares_rows(n, True)] == [1, 2, 3]
    assert not any(Parallel(jax.local_devices()[:1]).shares_rows(n, True) for n in range(1, 9))
    scorer = Scorer(*fitted_once("padim")[:2], TWO)
    assert scorer.batch_size(1) == 2  # unknown how many images there are
    assert scorer.batch_size(4, count=3) == 3
    assert scorer.batch_size(4, count=2) == scorer.batch_size(4, count=5) == 4
