"""Checkpoints of wrapped networks load as the bare one does, and the user is told."""

from collections import OrderedDict

import numpy as np
import pytest
import safetensors.numpy

from imvad_jax import methods
from imvad_jax.backbones import get
from imvad_jax.backbones.weights import MissingTensorError, load_weights
from imvad_jax.errors import UserError
from imvad_jax.model.pretrained import load_pretrained
from tests.backbones.checkpoints import tensor, write_legacy, write_zip

SPEC = get("resnet18")
OUTPUTS = ("layer1",)


@pytest.fixture(scope="module")
def tensors(recipe):
    return dict(recipe(SPEC, OUTPUTS))


@pytest.fixture(scope="module")
def expected(tensors):
    return SPEC.from_timm(tensors, OUTPUTS)


def prefixed(tensors, prefix):
    return {f"{prefix}{name}": array for name, array in tensors.items()}


def state_of(tensors):
    return OrderedDict(
        (name, tensor(str(index), array)) for index, (name, array) in enumerate(tensors.items())
    )


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod."),
        *("_orig_mod.module.", "model.backbone.", "module.model._orig_mod.backbone."),
    ],
)
def test_prefixes_are_found_and_said(prefix, tensors, expected, tmp_path):
    path = tmp_path / "net.safetensors"
    # a head beside the backbone does not hide it
    head = {"projection_head.0.weight": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(prefixed(tensors, prefix) | head, path)
    loaded = load_weights(SPEC, str(path), OUTPUTS)
    np.testing.assert_equal(loaded.variables, expected)
    said = f"Weights net.safetensors: '{prefix}' is taken off the names of its tensors."
    assert loaded.notes == (said,)


def test_parts_that_were_compiled_by_themselves_are_found(tensors, expected, tmp_path):
    path = tmp_path / "net.safetensors"
    inside = {name.replace("layer1.", "layer1._orig_mod."): a for name, a in tensors.items()}
    assert inside.keys() != tensors.keys()
    safetensors.numpy.save_file(prefixed(inside, "module."), path)
    np.testing.assert_equal(load_weights(SPEC, str(path), OUTPUTS).variables, expected)


def test_plain_names_come_first_and_are_not_mentioned(tensors, expected, tmp_path):
    path = tmp_path / "net.safetensors"
    zeros = {name: np.zeros_like(array) for name, array in tensors.items()}
    safetensors.numpy.save_file(prefixed(zeros, "module.") | tensors, path)
    loaded = load_weights(SPEC, str(path), OUTPUTS)
    np.testing.assert_equal(loaded.variables, expected)
    assert loaded.notes == ()


def test_two_networks_in_one_file_are_both_named(tensors, tmp_path):
    path = tmp_path / "net.safetensors"
    both = prefixed(tensors, "model.backbone.") | prefixed(tensors, "module.")
    safetensors.numpy.save_file(both, path)
    (note,) = load_weights(SPEC, str(path), OUTPUTS).notes
    assert "'module.' is taken off" in note and "under 'model.backbone.', too" in note


def test_the_older_names_of_an_efficientnet_have_prefixes_too(recipe):
    spec = get("efficientnet_lite0")
    tensors = recipe(spec, ("stage0",))
    older = {f"model.{_older(name)}": array for name, array in tensors.items()}
    assert spec.names_in(older, ("stage0",)).prefix == "model."
    np.testing.assert_equal(
        spec.from_timm(older, ("stage0",)), spec.from_timm(tensors, ("stage0",))
    )


def _older(name):
    for new, old in (
        *(("conv_stem", "_conv_stem"), ("blocks.0.0.conv_dw", "_blocks.0._depthwise_conv")),
        *(("blocks.0.0.conv_pw", "_blocks.0._project_conv"), ("blocks.0.0.bn", "_blocks.0._bn")),
        ("bn1", "_bn0"),
    ):
        if name.startswith(new):
            return old + name[len(new) :]
    raise AssertionError(name)


def test_an_unknown_prefix_is_named_and_no_layer_is_given_up(tensors, tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(prefixed(tensors, "student."), path)
    with pytest.raises(UserError, match="the file has 'student.* without 'student.'") as caught:
        load_weights(SPEC, str(path), OUTPUTS)
    assert str(path) in str(caught.value)
    assert not isinstance(caught.value, MissingTensorError)  # methods take fewer layers then


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "state_dict_ema"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".bin", ".ckpt"])
def test_nested_state_dicts_of_every_suffix(key, suffix, tensors, expected, tmp_path):
    write = write_legacy if suffix == ".pth.tar" else write_zip
    # what Lightning and optimisers put beside it: plain values, numbers as keys
    optimiser = {"state": {0: {"step": 3}, 1.5: None}, "param_groups": [{"lr": 0.1}]}
    content = {"epoch": 3, "optimizer_states": [optimiser], key: state_of(tensors)}
    path = write(tmp_path / f"net{suffix}", content)
    loaded = load_weights(SPEC, str(path), OUTPUTS)
    np.testing.assert_equal(loaded.variables, expected)
    assert loaded.notes == (f"Weights net{suffix}: the state dict is taken from '{key}'.",)


def test_both_notes_share_a_line_and_reach_the_model(recipe, tmp_path):
    config = methods.get("padim").config(backbone="resnet18", layers=("layer1",))
    outputs = methods.make("padim", config).outputs
    tensors = recipe(get(config.backbone), outputs)
    content = {
        "state_dict": state_of(prefixed(tensors, "model.")),
        "state_dict_ema": state_of(tensors),
        "model": {"name": "resnet"},  # no tensors: not a state dict
    }
    path = write_zip(tmp_path / "net.ckpt", content)
    assert load_pretrained("padim", config, str(path)).notes == (
        "Weights net.ckpt: the state dict is taken from 'state_dict', not from 'state_dict_ema'; "
        "'model.' is taken off the names of its tensors.",
    )
