"""The demo's job on one drawn category: pretrained features beat the baseline by far."""

import functools

import pytest

from imvad_jax import methods
from tests.experiments.demo import GOOD_IMAGES, category_of, draw, metrics

TRAINED = [m for m, method in methods.METHODS.items() if "gradient" in method.detector.phases]
# Ten minutes of training on a processor with AVX2: run by `make test-long`.
LONG = {"draem"}
# Epochs that suffice where the preset's take long; the preset's own are run by `make test-long`.
FEWER = {"cutpaste": 25}


@pytest.fixture(scope="module")
def parts_for(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")

    @functools.cache
    def drawn(category, good_images):
        return draw(root / f"{category}-{good_images}", category, good_images)

    return lambda method: drawn(category_of(method), GOOD_IMAGES.get(method))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["padim", "patchcore"])
def test_pretrained_features_find_what_colours_do_not(parts_for, method):
    found = metrics(parts_for(method), method, "demo", devices=2)
    baseline = metrics(parts_for("raw_color"), "raw_color", "official", devices=2)
    assert found["image_auroc"] >= 0.9
    assert found["image_auroc"] >= baseline["image_auroc"] + 0.1
    assert found["pixel_pro"] >= baseline["pixel_pro"] + 0.1


def trainings():
    """Methods with the epochs that they train, None for the preset's."""
    for method in TRAINED:
        if method in FEWER:
            yield pytest.param(method, FEWER[method], marks=pytest.mark.slow)
        takes_long = method in LONG or method in FEWER
        yield pytest.param(method, None, marks=pytest.mark.long if takes_long else pytest.mark.slow)


@pytest.mark.parametrize("method, epochs", list(trainings()))
def test_training_finds_what_the_untrained_detector_does_not(parts_for, method, epochs):
    parts = parts_for(method)
    fewer = {} if epochs is None else {"epochs": epochs}
    found = metrics(parts, method, "demo", devices=2, **fewer)
    untrained = metrics(parts, method, "demo", devices=2, epochs=0)
    print(f"image AUROC: {untrained['image_auroc']:.3f} untrained, {found['image_auroc']:.3f}")
    assert found["image_auroc"] >= 0.9
    # Of the pairs of a good and a bad part, half as many at most are in the wrong order.
    assert 1 - found["image_auroc"] <= (1 - untrained["image_auroc"]) / 2


SMALL = {"padim": {"num_channels": 24}, "patchcore": {}, "spade": {}, "raw_color": {}}


@pytest.mark.slow
@pytest.mark.parametrize("method", SMALL)
def test_metrics_of_1_and_8_devices_agree_to_1e_4(parts_for, method):
    preset = "official" if method == "raw_color" else "demo"
    one, eight = (
        metrics(parts_for(method), method, preset, devices, image_size=96, **SMALL[method])
        for devices in (1, 8)
    )
    assert one == pytest.approx(eight, abs=1e-4)
