"""VGG-16 against golden features, and what its taps are."""

import jax
import numpy as np
import pytest

from imvad_jax.backbones import get, layout


@pytest.mark.real
def test_features_equal_the_golden_ones(golden, recipe):
    images, expected = golden("vgg16")
    spec, outputs = get("vgg16"), tuple(expected)
    variables = spec.from_timm(recipe(spec, outputs), outputs)
    found = jax.jit(lambda v, x: spec.build().apply(v, x, outputs=outputs))(variables, images)
    assert set(outputs) == {"relu8", "relu15", "relu22", "relu29"}
    for output in outputs:
        difference = np.abs(np.asarray(found[output]) - expected[output]).max()
        assert difference < 1e-4 * np.abs(expected[output]).max(), output


def test_poolings_and_aliases():
    spec = get("vgg16")
    outputs = ("relu15", "pool16", "relu22", "layer1", "layer2")
    variables = layout.random_variables(spec.variables_template(outputs), seed=0)
    images = np.random.default_rng(0).random((1, 20, 24, 3), dtype=np.float32)
    found = jax.jit(lambda v, x: spec.build().apply(v, x, outputs=outputs))(variables, images)
    np.testing.assert_array_equal(found["layer1"], found["relu15"])
    np.testing.assert_array_equal(found["layer2"], found["relu22"])
    blocks = np.asarray(found["relu15"])[:, :4, :6].reshape(1, 2, 2, 3, 2, 256)
    np.testing.assert_array_equal(found["pool16"], blocks.max((2, 4)))
    assert (np.asarray(found["relu22"]) >= 0).all() and (np.asarray(found["relu22"]) > 0).any()


def test_taps_are_where_torchvision_has_them():
    spec = get("vgg16")
    # FAVAE's: features.7, .14 and .21 after their ReLUs
    taps = {"relu8": (128, 2), "relu15": (256, 4), "relu22": (512, 8), "relu29": (512, 16)}
    assert {tap: (spec.channels(tap), spec.stride(tap)) for tap in taps} == taps
    names = {path for path in layout_names(spec, ("relu22",))}
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
    assert names == {f"features.{n}.{leaf}" for n in convolutions for leaf in ("weight", "bias")}


def layout_names(spec, outputs):
    template = spec.variables_template(outputs)["params"]
    return [layout.timm_name((module, leaf)) for module in template for leaf in template[module]]
