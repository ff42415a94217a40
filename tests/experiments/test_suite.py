"""`imvad suite` as a user meets it: the parcel, a short suite of it, and bad input."""

import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from flax import traverse_util

from imvad_jax import backbones
from imvad_jax.backbones import layout
from imvad_jax.benchmarks.report import render_benchmarks
from imvad_jax.reporting.results import render_results
from tests.data.trees import mvtec_tree


def call(*arguments):
    """Exit status, all that was printed, and the last line of the standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.suite", *arguments], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    said = done.stderr + done.stdout
    return done.returncode, said, (done.stderr.splitlines() or [""])[-1]


def write_weights(path):
    """Weights of ResNet-18 to layer3, drawn."""
    rng, tensors = np.random.default_rng(0), {}
    template = backbones.get("resnet18").variables_template(("layer1", "layer2", "layer3"))
    for name, leaf in traverse_util.flatten_dict(template).items():
        shape = layout.torch_shape(name, leaf.shape)
        found = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape) if len(shape) > 1 else 0.5
        tensors[layout.timm_name(name[1:])] = np.broadcast_to(found, shape).astype(np.float32)
    np.savez(path, **tensors)


@pytest.fixture(scope="module")
def parcel(tmp_path_factory):
    """A parcel of drawn images at 64 pixels, and the weights in it."""
    top = tmp_path_factory.mktemp("suite")
    mvtec_tree(top / "data", "bottle")
    mvtec_tree(top / "data", "screw", grey=True)
    write_weights(top / "drawn.npz")
    status, out, error = call(
        f"--pack={top / 'parcel'}", f"--data_dir={top / 'data'}", f"--weights={top / 'drawn.npz'}",
        "--preset=smoke",
    )  # fmt: skip
    assert status == 0, error
    assert re.search(r"^\d+\.\d MiB in all$", out, re.M)
    names = {path.name for path in (top / "parcel").iterdir()}
    assert names == {"parcel.json", "weights.npz", "mvtec_ad-bottle.parcel.npz",
                     "mvtec_ad-screw.parcel.npz"}  # fmt: skip
    return top / "parcel"


def given(parcel, out):
    return f"--data_cache={parcel}", f"--weights={parcel / 'weights.npz'}", f"--out={out}"


def test_a_short_suite(parcel, tmp_path):
    out = tmp_path / "out"
    arguments = [*given(parcel, out), "--preset=smoke", "--parts=b,c,f", "--time_limit=5m"]
    status, text, error = call(*arguments)
    assert status == 0, text + error
    order = re.findall(r"^([a-f]) (\S+) \.\.\.$", text, re.M)
    assert order == [("b", "table-0"), ("b", "scores-cpu"), ("b", "scores-highest"),
                     ("c", "rates-raw-color"), ("f", "loops-cfa")]  # fmt: skip
    assert {p.name for p in (out / "results").iterdir()} == {
        f"mvtec-ad.{name}.padim.smoke-resnet18-seed0.json" for name in ("bottle", "screw")
    }
    assert "| PaDiM | smoke |" in render_results(out / "results")
    page = render_benchmarks(out / "benchmarks") if not _busy(out) else ""
    shown = ("## agreement", "| host s |", "raw_color (smoke)")
    assert _busy(out) or all(part in page for part in shown)
    entries = json.loads((out / "benchmarks" / "agreement.json").read_text())["agreement"]
    assert [(entry["products"], entry["within"]) for entry in entries] == [("float32", True)]
    (loops,) = json.loads((out / "benchmarks" / "loops.json").read_text())["loops"]
    assert loops["steps"] * loops["batch_size"] >= loops["images"] > 0
    assert all(loops[name]["epoch_s"]["repeats"] == 3 for name in ("host", "device"))
    assert "seconds of an epoch:\ncfa, " in text
    batches = json.loads((out / "benchmarks" / "rates.json").read_text())["records"][0]["scoring"]
    assert [part["batch_size"] for part in batches] == [1, 32, 256]
    with zipfile.ZipFile(out / "suite.zip") as archive:
        names = archive.namelist()
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+(/[A-Za-z0-9.-]+){0,2}", name) for name in names)
    assert len([name for name in names if name.startswith("results/")]) == 2
    status, text, _ = call(*arguments)  # all is done: nothing is made again
    assert status == 0 and not re.search(r" \.\.\.$", text, re.M)
    status, _, error = call(*given(parcel, out), "--parts=b")
    assert status == 2 and "expected 256" in error


def _busy(out):
    """Whether the machine was too busy for a page of benchmarks."""
    records = json.loads((out / "benchmarks" / "rates.json").read_text())["records"]
    return any((record["others_share"] or 0) > 0.1 for record in records)


def test_bad_input_is_one_line(parcel, tmp_path):
    out = tmp_path / "out"
    other = tmp_path / "other.npz"
    np.savez(other, weight=np.zeros(3, np.float32))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    usual = [*given(parcel, out), "--preset=smoke"]
    for arguments, message in (
        ([*usual, "--time_limit=5s"], "--time_limit=5s: the first part needs about 40 s"),
        ([*given(parcel, out)], "holds bottle at 64 pixels; expected 256"),
        ([*usual, f"--weights={other}"], "--weights: expected those of resnet18; "),
        ([*usual, f"--out={mine}"], "holds other files (thesis.txt)"),
    ):
        status, _, error = call(*arguments)
        assert status == 2 and error.startswith("error: ") and message in error
        assert not out.exists()
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
