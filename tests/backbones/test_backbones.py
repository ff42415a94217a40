"""The registry and what every backbone must keep to. Nothing here compiles a network."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import traverse_util

from imvad_jax.backbones import BACKBONES, get
from imvad_jax.errors import UserError

RESNETS = ("resnet18", "resnet34", "resnet50", "wide_resnet50_2")
EFFICIENTNETS = ("efficientnet_lite0", "tf_efficientnet_b5", "efficientnet_b5_static")
LAYERED = (*RESNETS, *EFFICIENTNETS, "vgg16")  # those that have layer1 ... layer4
NAMES = (*LAYERED, "vit_base_patch16_224")
# An odd side halves to the larger half, but for VGG; static padding promises nothing of it.
SIZES = [
    (name, size) for name in LAYERED for size in (64, 75) if size == 64 or "static" not in name
]
SIZES += [("vit_base_patch16_224", 224)]


def shapes(spec, outputs, image_shape, dtype=jnp.float32, **kwargs):
    """The outputs' shapes and types by tracing alone, on variables of just these outputs."""
    variables = spec.variables_template(outputs)
    images = jax.ShapeDtypeStruct(image_shape, jnp.float32)

    def apply(variables, images):
        return spec.build(dtype).apply(variables, images, outputs=outputs, **kwargs)

    return jax.eval_shape(apply, variables, images)


def test_registry_names_and_unknown_name():
    assert tuple(BACKBONES) == NAMES
    assert get("resnet18") is BACKBONES["resnet18"]
    with pytest.raises(UserError, match=r"backbone.*'resnet81'.*did you mean 'resnet18'"):
        get("resnet81")


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_taps_have_the_stated_channels_and_strides(name, size):
    spec = get(name)
    height, width = size, size if spec.input_size else size + 8
    found = shapes(spec, spec.outputs, (2, height, width, 3))
    assert tuple(found) and set(found) == set(spec.outputs)
    for output in spec.outputs:
        assert found[output].dtype == jnp.float32
        if output in ("pool", "logits", "cls", "tokens_mean"):
            assert found[output].shape == (2, spec.channels(output))
            with pytest.raises(UserError, match=f"'{output}' is a vector"):
                spec.stride(output)
        else:
            stride = spec.stride(output)
            up = 0 if name == "vgg16" else stride - 1
            expected = (2, (height + up) // stride, (width + up) // stride, spec.channels(output))
            assert found[output].shape == expected


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 128, 256, 512)),
        ("wide_resnet50_2", (256, 512, 1024, 2048)),
        ("efficientnet_lite0", (24, 40, 112, 320)),
        ("tf_efficientnet_b5", (40, 64, 176, 512)),
        ("vgg16", (256, 512, 512, 512)),
    ],
)
def test_layers_are_the_familiar_ones(name, channels):
    spec = get(name)
    layers = [f"layer{stage}" for stage in (1, 2, 3, 4)]
    assert tuple(spec.channels(layer) for layer in layers) == channels
    assert tuple(spec.stride(layer) for layer in layers) == (4, 8, 16, 32)


@pytest.mark.parametrize("name", LAYERED)
def test_only_what_the_outputs_need_is_touched(name):
    spec = get(name)
    template = spec.variables_template(("layer1",))
    modules = {path[1] for path in traverse_util.flatten_dict(template)}
    assert not modules & {
        *("layer2_0", "blocks_2_0", "features_17", "fc", "conv_head", "classifier")
    }
    assert shapes(spec, ("layer1",), (1, 64, 64, 3))["layer1"].shape[-1] == spec.channels("layer1")


def test_parameter_counts_are_those_of_the_published_networks():
    counts = {
        name: sum(leaf.size for leaf in jax.tree.leaves(get(name).variables_template()["params"]))
        for name in NAMES
    }
    assert counts == {
        "resnet18": 11_689_512,
        "resnet34": 21_797_672,
        "resnet50": 25_557_032,
        "wide_resnet50_2": 68_883_240,
        "efficientnet_lite0": 4_652_008,
        "tf_efficientnet_b5": 30_389_784,
        "efficientnet_b5_static": 30_389_784,
        "vgg16": 138_357_544 - 123_642_856,  # without its classifier
        "vit_base_patch16_224": 86_567_656 - 769_000,  # likewise
    }


def test_compute_type_leaves_parameters_in_float32():
    spec = get("resnet18")
    found = shapes(spec, ("layer2", "pool"), (1, 64, 64, 3), dtype=jnp.bfloat16)
    assert found["layer2"].dtype == found["pool"].dtype == jnp.bfloat16
    leaves = jax.tree.leaves(spec.variables_template())
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_training_updates_the_statistics(name):
    spec = get(name)
    kwargs = {"train": True, "mutable": ["batch_stats"]}
    found, updates = shapes(spec, ("layer1",), (2, 64, 64, 3), **kwargs)
    assert found["layer1"].shape[0] == 2
    assert (
        updates["batch_stats"].keys() == spec.variables_template(("layer1",))["batch_stats"].keys()
    )


def test_a_backbone_built_inside_a_module_is_not_adopted():
    spec = get("resnet18")

    class Head(nn.Module):
        @nn.compact
        def __call__(self, backbone, images):
            features = spec.build().apply(backbone, images, outputs=("layer1",))["layer1"]
            return nn.Dense(2)(features)

    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    backbone = spec.variables_template(("layer1",))
    variables = jax.eval_shape(
        lambda backbone, images: Head().init(jax.random.key(0), backbone, images), backbone, images
    )
    assert set(variables) == {"params"} and set(variables["params"]) == {"Dense_0"}


def test_specs_hash_and_templates_are_not_shared():
    spec = get("resnet18")
    assert len({spec, get("resnet18"), get("resnet34")}) == 2
    spec.variables_template(("layer1",))["params"].clear()
    assert spec.variables_template(("layer1",))["params"]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
@pytest.mark.parametrize(
    ("outputs", "image_shape", "message"),
    [
        (("layer5",), (1, 64, 64, 3), "'layer5'; did you mean 'layer"),
        ((), (1, 64, 64, 3), "expected a non-empty sequence"),
        ("layer1", (1, 64, 64, 3), "expected a non-empty sequence"),
        (("layer1",), (1, 3, 64, 64), r"\(1, 3, 64, 64\), expected \[B, H, W, 3\]"),
        (("layer1",), (64, 64, 3), r"\(64, 64, 3\), expected"),
    ],
)
def test_bad_calls(name, outputs, image_shape, message):
    module = get(name).build()
    images = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(lambda x: module.apply({}, x, outputs=outputs), images)


def test_integer_images_are_refused():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8)
    with pytest.raises(UserError, match="uint8, expected float in"):
        jax.eval_shape(lambda x: get("resnet18").build().apply({}, x, outputs=("layer1",)), images)


def test_unknown_tap_of_a_spec():
    with pytest.raises(UserError, match="output of backbone resnet18: unknown value 'layer9'"):
        get("resnet18").channels("layer9")
