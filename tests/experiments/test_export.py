"""A fitted run as one file: it computes what the detector does, by itself, or is refused."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from imvad_jax import api, methods
from imvad_jax.data.decode import load_image
from imvad_jax.errors import UserError
from imvad_jax.evaluation.calibration import NAME, calibrate
from imvad_jax.export import check, exporter, to_onnx, to_stablehlo, whole
from tests.methods.small import fitted, fitted_once, images, make

# One process loads all files: batches of 1 and 3 of each, and pictures read from files.
DRIVER = """
import runpy, sys
import numpy as np
example, folder, *names = sys.argv[1:]
script = runpy.run_path(example)
images = np.load(folder + "/images.npy")
for name in names:
    detect, metadata = script["load"](f"{folder}/{name}.zip")
    found = [detect(images[:1]), detect(images[1:])]
    assert set(found[0]) == set(metadata["outputs"])
    found = {key: np.concatenate([np.asarray(part[key]) for part in found]) for key in found[0]}
    found["read"] = script["read"](folder + "/picture.png", metadata)
    np.savez(f"{folder}/{name}.npz", **found)
assert "imvad_jax" not in sys.modules and "flax" not in sys.modules
"""
# Small networks compile fast; what is trained stays as it starts.
FILES = {
    "raw_color": {},
    "padim": {"layers": "layer1"},
    "patchcore": {"layers": "layer1", "embedding_dim": 32},
    "patchcore-averages": {
        "layers": "layer1", "embedding_dim": 32, "aggregation": "local_average",
        "image_score": "map",
    },
    "stpm": {"layers": "layer1"},
    "fastflow": {"layers": "layer1", "flow_steps": 2},
}  # fmt: skip


def save_run(method: str, directory: Path, calibrated: bool = False, **overrides) -> Path:
    if not overrides:
        detector, variables, _ = fitted_once(method)
    elif "gradient" in methods.get(method).detector.phases:
        detector, variables = make(method, **overrides)
    else:
        detector, variables, _ = fitted(method, **overrides)
    api.save(api.Model(method, detector, variables, fitted=True), directory)
    if calibrated:
        rng = np.random.default_rng(0)
        scores, highest, median = rng.uniform(1, 2, (3, 10))
        found = calibrate(scores, [f"{i}.png" for i in range(10)], 0.9, highest, median)
        (directory / NAME).write_text(json.dumps(found.as_dict()))
    return directory


@pytest.fixture(scope="module")
def raw_color(tmp_path_factory) -> whole.Whole:
    return whole.restore(save_run("raw_color", tmp_path_factory.mktemp("run"), calibrated=True))


@pytest.mark.slow
def test_files_compute_what_the_detectors_do_without_imvad_jax(tmp_path):
    functions = {}
    for method, overrides in FILES.items():
        run = save_run(method.partition("-")[0], tmp_path / method, method != "stpm", **overrides)
        functions[method] = whole.restore(run)
        to_stablehlo.write(functions[method], tmp_path / f"{method}.zip", 0, ("cpu", "tpu"))
    batch = images(4, 1).images
    np.save(tmp_path / "images.npy", batch)
    grey = np.random.default_rng(0).integers(0, 256, (90, 50), np.uint8)
    Image.fromarray(grey).save(tmp_path / "picture.png")
    example = check.EXAMPLES / "score_stablehlo.py"
    command = [sys.executable, "-c", DRIVER, str(example), str(tmp_path), *FILES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for method, function in functions.items():
        found = dict(np.load(tmp_path / f"{method}.npz"))
        picture = load_image(str(tmp_path / "picture.png"), function.model.geometry)
        np.testing.assert_array_equal(found.pop("read"), np.repeat(picture, 3, -1))
        parity = check.differences(check.live(function, batch), found)
        scaled = {name for name in parity if name.startswith("normalized")}
        assert len(scaled) == (0 if method == "stpm" else 2)


def test_what_is_written_is_compared_and_says_what_it_is(raw_color, tmp_path):
    path, batch = tmp_path / "new" / "detector.zip", images(3, 1).images
    parity = exporter.export(
        raw_color, "stablehlo", path, platforms=("cpu",), batch_size=2, images=batch
    )
    assert max(parity.values()) < check.TOLERANCE and set(parity) == set(whole.MEANINGS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    metadata = json.loads(np.load(path)["metadata.json"])
    assert metadata["method"] == "raw_color" and metadata["calibration"]["image"]["threshold"] > 1
    assert metadata["input"]["shape"] == [2, 64, 64, 3]
    assert metadata["outputs"]["normalized_map"]["shape"] == [2, 64, 64]
    assert metadata["input"]["resize"] == [64, 64] and metadata["input"]["crop"] == [0, 0, 64, 64]


def test_what_differs_is_not_kept(raw_color, tmp_path, monkeypatch):
    path, batch = tmp_path / "detector.zip", images(2).images
    path.write_bytes(b"an earlier export")
    right = check.live(raw_color, batch)
    for change, message in (
        ({"score": right["score"] * 1.001}, "score by 0.001"),
        ({"score": right["score"] * np.nan}, "score by nan"),
        ({"anomaly_map": right["anomaly_map"][:1]}, "the export gives"),
    ):
        monkeypatch.setattr(check, "reloaded", lambda *_, change=change: right | change)
        with pytest.raises(UserError, match=message):
            exporter.export(
                raw_color, "stablehlo", path, platforms=("cpu",), batch_size=0, images=batch
            )
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an earlier export"]


def test_what_cannot_be_converted_is_refused_with_the_reason(raw_color, tmp_path, monkeypatch):
    def fail(*_):
        raise NotImplementedError("no rule for primitive 'cholesky'")

    monkeypatch.setattr(to_stablehlo, "write", fail)
    with pytest.raises(UserError, match="raw colour.*primitive 'cholesky'.*batch_size=1"):
        exporter.export(
            raw_color,
            "stablehlo",
            tmp_path / "d.zip",
            platforms=("cpu",),
            batch_size=0,
            images=images(1).images,
        )
    assert not list(tmp_path.iterdir())


def test_onnx_says_what_is_missing_and_what_is_too_big(raw_color, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="make install-onnx"):
        to_onnx.check(raw_color)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    to_onnx.check(raw_color)
    large = np.broadcast_to(np.float32(0), (2**30,))
    with pytest.raises(UserError, match="take 4.00 GiB.*less than 2"):
        to_onnx.check(whole.Whole(raw_color.model, {"bank": large}))


def test_onnx_names_the_operation_that_is_not_converted(tmp_path):
    path = tmp_path / "jax2onnx" / "plugins" / "lax" / "cholesky.py"
    code = compile("def lower(): raise TypeError('of no use')", str(path), "exec")
    exec(code, found := {})
    with pytest.raises(TypeError) as raised:
        found["lower"]()
    assert to_onnx.failed_operation(raised.value) == "cholesky"
    assert to_onnx.failed_operation(ValueError("elsewhere")) is None


def test_outputs_are_replaced_only_where_it_is_wanted(tmp_path):
    old, folder = tmp_path / "old.zip", tmp_path / "folder"
    old.write_bytes(b"")
    folder.mkdir()
    (folder / "letters.txt").write_text("dear")
    exporter.check_output(tmp_path / "new" / "file.zip", "stablehlo", False, 10)
    exporter.check_output(old, "stablehlo", True, 10)
    for arguments, message in (
        ((old, "stablehlo", False, 10), "add overwrite"),
        ((folder, "stablehlo", True, 10), "no earlier export"),
        ((folder, "savedmodel", True, 10), "no earlier export"),
        ((old, "savedmodel", True, 10), "no earlier export"),
        ((old / "file.zip", "stablehlo", False, 10), "is not a folder"),
        ((tmp_path / "file.zip", "stablehlo", False, 2**60), "GiB are free"),
    ):
        with pytest.raises(UserError, match=message):
            exporter.check_output(*arguments)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no model there"):
        whole.restore(tmp_path)


def test_images_of_a_folder_are_taken_evenly_or_else_noise(raw_color, tmp_path):
    for number in range(9):
        Image.new("L", (30, 20), 10 * number).save(tmp_path / f"{number}.png")
    found, words = check.choose_images(raw_color, str(tmp_path), None)
    assert found.shape == (4, 64, 64, 3) and found[:, 0, 0, 2].tolist() == [0, 20, 40, 60]
    assert str(tmp_path) in words
    assert "noise" in check.choose_images(raw_color, None, str(tmp_path))[1]
    with pytest.raises(UserError, match="check_images=.*no such"):
        check.choose_images(raw_color, str(tmp_path / "none"), None)


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in methods.METHODS if m not in FILES])
def test_every_other_method_can_be_exported(method, tmp_path):
    function = whole.restore(save_run(method, tmp_path / "run", calibrated=True))
    batch = images(3, 1).images
    exporter.export(
        function,
        "stablehlo",
        tmp_path / "d",
        platforms=exporter.DEFAULT_PLATFORMS,
        batch_size=0,
        images=batch,
    )


@pytest.mark.slow
def test_savedmodels_run_in_tensorflow_alone_and_are_replaced(tmp_path):
    function = whole.restore(save_run("stpm", tmp_path / "run", calibrated=True))
    path, batch = tmp_path / "saved", images(3, 1).images
    for _ in range(2):  # the second replaces the first
        exporter.export(
            function, "savedmodel", path, platforms=("cpu",), batch_size=0, images=batch
        )
        exporter.check_output(path, "savedmodel", True, 0)
    assert {file.name for file in tmp_path.iterdir()} == {"run", "saved"}


def test_other_runtimes_get_plain_convolutions_and_stablehlo_the_rule():
    """Of 128 pixels the layers are large enough for the rule to choose by platform."""
    made = make("stpm", image_size=128, crop_size=0, layers="layer1")
    function = whole.whole_of(api.Model("stpm", *made, fitted=True))
    shapes = function.array_shapes(), function.image_shape(2)
    plain, by_rule = (str(jax.make_jaxpr(f)(*shapes)) for f in (function.plain, function.__call__))
    assert "conv_general_dilated" in plain and "platform_index" not in plain
    assert "platform_index" in by_rule
