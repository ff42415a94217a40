"""PyTorch checkpoints assembled by hand: read right, and refused where they lie or call code.

PyTorch is not needed: `checkpoints.Pickler` writes globals and storages as names.
"""

import gc
import io
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.backbones import get, torch_pickle
from imvad_jax.backbones.lazy_tensor import Malformed
from imvad_jax.backbones.tensor_files import open_tensors
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from tests.backbones.checkpoints import (
    Call,
    Global,
    pickled,
    storage,
    tensor,
    view,
    write_legacy,
    write_zip,
)

WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])


def read(path):
    with open_tensors(Path(path)) as tensors:
        return {name: np.array(tensors[name]) for name in tensors}


def refused(match, path):
    with pytest.raises(UserError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value)


@WRITERS
@pytest.mark.parametrize("protocol", [2, 4])
def test_views_types_and_shared_storages(write, protocol, tmp_path):
    base = np.arange(48, dtype=np.float32).reshape(6, 8)
    stored = storage("0", base)
    brain = np.array([1.5, -2, 3], np.float32).astype(jnp.bfloat16)
    state = OrderedDict(
        whole=view(stored, 0, (6, 8), (8, 1)),
        transposed=view(stored, 0, (8, 6), (1, 8)),
        part=view(stored, 10, (3, 3), (8, 2)),
        empty=view(storage("1", np.zeros(0, np.float32)), 0, (0, 4), (4, 1)),
        scalar=tensor("2", np.array(7, np.int64)),
        half=tensor("3", np.array([0.5, 2], np.float16)),
        double=tensor("4", np.array([0.1], np.float64)),
        flags=tensor("5", np.array([True, False])),
        brain=view(storage("6", brain, kind="BFloat16"), 0, (3,), (1,)),
        parameter=Call(
            Global("torch._utils", "_rebuild_parameter"),
            (tensor("7", np.ones(2, np.float32)), True, OrderedDict()),
        ),
    )
    state._metadata = OrderedDict(version=1)  # PyTorch's; written as the state of a BUILD
    found = read(write(tmp_path / "net.pth", state, protocol))
    assert list(found) == list(state)
    np.testing.assert_array_equal(found["whole"], base)
    np.testing.assert_array_equal(found["transposed"], base.T)
    np.testing.assert_array_equal(found["part"], base[1:4, 2:8:2])
    assert found["empty"].shape == (0, 4) and found["scalar"] == 7
    assert [found[name].dtype.name for name in ("half", "double", "flags", "brain")] == [
        "float16",
        "float64",
        "bool",
        "bfloat16",
    ]
    np.testing.assert_array_equal(found["brain"].astype(np.float32), [1.5, -2, 3])
    np.testing.assert_array_equal(found["parameter"], [1, 1])


@WRITERS
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_a_backbone_loads_from_a_training_checkpoint(write, key, tmp_path, recipe):
    spec, outputs = get("resnet18"), ("layer1",)
    tensors = recipe(spec, outputs)
    state = OrderedDict(
        (f"module.{name}", tensor(str(index), array))
        for index, (name, array) in enumerate(tensors.items())
    )
    content = {key: state, "epoch": 3, "rates": [0.1, None, True]} if key else state
    path = write(tmp_path / "net.pt", content)
    loaded = load_weights(spec, str(path), outputs)
    expected = spec.from_timm(tensors, outputs)
    for module in ("conv1", "layer1_1"):
        np.testing.assert_equal(loaded.variables["params"][module], expected["params"][module])
    np.testing.assert_equal(loaded.variables["batch_stats"], expected["batch_stats"])


@WRITERS
@pytest.mark.parametrize(
    "function",
    [
        Global("os", "system"),
        Global("posix", "system"),
        Global("builtins", "eval"),
        Global("torch", "load"),
        Global("torch.nn.modules.linear", "Linear"),
    ],
)
def test_other_globals_are_refused_by_name_and_not_called(write, function, tmp_path):
    witness = tmp_path / "executed"
    state = OrderedDict(evil=Call(function, (f"touch {witness}",)))
    path = write(tmp_path / "evil.pth", state)
    refused(f"the global '{function.module}.{function.name}', which is refused", path)
    assert not witness.exists()


def test_stack_globals_and_bare_pickles_are_refused_too(tmp_path):
    witness, path = tmp_path / "executed", tmp_path / "evil.pt"
    command = f"touch {witness}".encode()
    payload = b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command
    path.write_bytes(payload + b"\x85R.")
    refused("the global 'os.system', which is refused", path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", payload + b"\x85R.")
    refused("the global 'os.system', which is refused", path)
    assert not witness.exists()


@WRITERS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (3, 5), (5, 1)),
        (8, (5,), (1,)),
        (0, (2,), (12,)),
        (0, (10**12,), (0,)),
        (0, (10**9, 10**9), (10**9, 1)),
        (2**62, (1,), (1,)),
    ],
)
def test_tensors_that_exceed_their_storage(write, offset, shape, strides, tmp_path):
    stored = storage("0", np.arange(12, dtype=np.float32))
    path = write(tmp_path / "net.pth", {"lying": view(stored, offset, shape, strides)})
    refused(r"tensor 'lying': its shape .* exceeds its storage of 12 numbers", path)


@WRITERS
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(-1, (2,), (1,)), (0, (-2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (0, [2], (1,))],
)
def test_senseless_views(write, offset, shape, strides, tmp_path):
    stored = storage("0", np.arange(12, dtype=np.float32))
    path = write(tmp_path / "net.pth", {"lying": view(stored, offset, shape, strides)})
    refused("a tensor in its pickle has", path)


def test_storages_shorter_than_they_claim(tmp_path):
    stored = storage("0", np.arange(12, dtype=np.float32), numel=10**15)
    state = {"a": view(stored, 0, (10**6,), (1,))}
    refused("storage '0' has 48 bytes for", write_zip(tmp_path / "net.pth", state))
    refused("storage '0' is cut off", write_legacy(tmp_path / "net.pth", state))


@WRITERS
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_truncated_files(write, keep, tmp_path):
    state = OrderedDict(a=tensor("0", np.ones((20, 30), np.float32)), b=tensor("1", np.ones(9)))
    path = write(tmp_path / "net.pth", state)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    refused("cannot be read as .pth: .*fetch the file again", path)


def test_zip_archives_that_are_no_checkpoints(tmp_path):
    path, state = tmp_path / "net.pth", {"a": tensor("0", np.ones(1000, np.float32))}
    refused("compressed", write_zip(path, state, compression=zipfile.ZIP_DEFLATED))
    refused("record archive/data/0 is missing", write_zip(path, state, drop=("0",)))
    refused("byte order b'big'", write_zip(path, state, order=b"big"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    refused("0 records data.pkl", path)


def test_legacy_files_that_are_no_checkpoints(tmp_path):
    path, state = tmp_path / "net.pth", {"a": tensor("0", np.ones(4, np.float32))}
    refused("not written on a little-endian machine", write_legacy(path, state, little=False))
    refused("version 7", write_legacy(path, state, version=7))
    path.write_bytes(pickled(5)[0])
    refused("neither a zip archive nor a legacy checkpoint", path)
    path.write_text("<html>not found</html>")
    refused("cannot be read as .pth|is not read", path)


@WRITERS
@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {1: tensor("0", np.ones(2))}, None])
def test_no_state_dict(write, content, tmp_path):
    refused("holds no state dict", write(tmp_path / "net.pth", content))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x80\x02\x8f.", "opcode EMPTY_SET is not read"),
        (b"\x80\x02}(]K\x01u.", "a dict key in its pickle is a list"),
        (b"\x80\x02]K\x01K\x02s.", "sets items of something that is no dict"),
        (b"\x80\x02K\x01K\x02a.", "appends to something that is no list"),
        (b"\x80\x02K\x01K\x02b.", "sets attributes of something that is no dict"),
        (b"\x80\x02K\x01)R.", "calls something that is no function"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls something that is no function"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "unexpected arguments"),
        (b"\x80\x02K\x01Q.", "not described as one"),
        (b"\x80\x02K\x01\x87.", "ends a tuple that it did not begin"),
        (b"\x80\x02h\x05.", "not well formed"),
        (b"\x80\x02}", "not well formed"),
    ],
)
def test_pickles_that_make_no_sense(payload, message, tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    refused(message, path)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(Malformed):
            torch_pickle.read(io.BytesIO(b"\x80\x02R."), "a file")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
