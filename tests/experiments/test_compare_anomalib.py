"""The comparison of whole processes, with a made-up anomalib."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from imvad_jax.benchmarks import anomalib_driver, anomalib_plan, compare_anomalib, workloads
from imvad_jax.benchmarks.anomalib_figures import COLD, FIRST, THEIRS, WARM, collect
from imvad_jax.benchmarks.anomalib_processes import HERE, Programs, find_anomalib
from imvad_jax.errors import UserError
from imvad_jax.training.parallel import Parallel
from tests.experiments.fake_anomalib import detector, figures, request, write_fake, write_parts
from tests.methods.small import make


@pytest.fixture
def fake(tmp_path):
    """An interpreter that says what anomalib's driver would."""
    return write_fake(tmp_path / "python")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Four good images to fit on, a good and a defective one to test."""
    return write_parts(tmp_path_factory.mktemp("parts"))


def test_the_driver_reads_its_command_line():
    args = anomalib_driver.parse(["--model=patchcore", '--settings={"num_neighbors": 1}'])
    assert (args.model, args.settings) == ("patchcore", {"num_neighbors": 1})
    assert args.weights is None and not args.versions and args.crop_size == args.epochs == 0
    with pytest.raises(SystemExit):
        anomalib_driver.parse(["--coreset=0.25"])


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("padim", {"num_channels": 7}, {"model": "padim", "settings": {"n_features": 7}}),
        (
            "patchcore", {},
            {"model": "patchcore", "settings": {"coreset_sampling_ratio": 0.1, "num_neighbors": 1}},
        ),
        (
            "patchcore", {"reweight_neighbors": 9},
            {"settings": {"coreset_sampling_ratio": 0.1, "num_neighbors": 9},
             "layers": "layer2,layer3"},
        ),
    ],
)  # fmt: skip
def test_the_driver_understands_what_it_is_asked_for(method, overrides, expected):
    asked = request("python", Path(), method=method, weights="file.safetensors", seed=5)
    plan = anomalib_plan.make_plan(asked, detector(method, **overrides), "cpu")
    args = vars(anomalib_driver.parse(plan.arguments))
    wanted = expected | {"image_size": 64, "weights": "file.safetensors", "seed": 5, "epochs": 0}
    assert {key: args[key] for key in wanted} == wanted and plan.epochs == 0


@pytest.mark.parametrize(
    ("method", "overrides", "platform", "message"),
    [
        ("raw_color", {}, "cpu", "raw_color is not compared; cfa, .*, padim, patchcore, .* are"),
        ("padim", {"backbone": "efficientnet_lite0"}, "cpu", "backbone efficientnet_lite0"),
        ("patchcore", {"num_neighbors": 2}, "cpu", "patchcore with num_neighbors=1 only"),
        ("padim", {}, "gpu", "accelerator"),
    ],
)
def test_other_work_is_refused(method, overrides, platform, message):
    asked = request("python", Path(), method=method)
    with pytest.raises(UserError, match=message):
        anomalib_plan.make_plan(asked, detector(method, **overrides), platform)


def test_an_interpreter_without_anomalib_is_named(fake, tmp_path):
    with pytest.raises(UserError, match="anomalib_python is missing.*pip install anomalib"):
        find_anomalib(None)
    with pytest.raises(UserError, match="absent: cannot be run"):
        find_anomalib(str(tmp_path / "absent"))
    with pytest.raises(UserError, match=f"{sys.executable} has no anomalib .*Expected the python"):
        find_anomalib(sys.executable)
    assert find_anomalib(fake) == {"anomalib": "9.9"}


def test_weights_that_anomalib_cannot_read_are_refused():
    anomalib_plan.check_weights("random")
    anomalib_plan.check_weights("a/b.safetensors")
    with pytest.raises(UserError, match="hub:timm/resnet18"):
        anomalib_plan.check_weights("hub:timm/resnet18.tv_in1k@main")


def measure_process(out, code):
    command = [sys.executable, str(HERE / "whole_process.py"), str(out)]
    done = subprocess.run([*command, sys.executable, "-c", code])
    return done.returncode, json.loads(out.read_text())


def test_memory_and_status_are_those_of_the_process_alone(tmp_path):
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # with JAX
    status, used = measure_process(tmp_path / "a", "x = b'x' * (40 << 20); raise SystemExit(4)")
    assert status == used["status"] == 4
    assert 40 * 2**20 < used["peak_bytes"] < 80 * 2**20 < own
    assert used["wall_s"] > 0 and used["cpu_s"] > 0
    status, used = measure_process(tmp_path / "b", "import os; os.kill(os.getpid(), 9)")
    assert (status, used["status"]) == (137, -9)


def test_ratios_are_of_medians_and_validation_is_left_out():
    theirs = [
        {"fit_s": s, "validate_s": 100.0, "test_s": 4.0, "process_s": 130.0, "peak_bytes": 2**32,
         "metrics": {"image_auroc": 0.6}}
        for s in (10.0, 50.0, 20.0)
    ]  # fmt: skip
    runs = {
        FIRST: [figures(8, 40)],
        COLD: [figures(d, 20) for d in (3.0, 5.0, 4.0)],
        WARM: [figures(0.5, p) for p in (12, 10, 99)],
        THEIRS: theirs,
    }
    found = collect(runs, [3.0, 1.0, 2.0], 6)
    ratios = {work: part["ratio"] for work, part in found["parts"].items()}
    assert ratios == {
        "fit, warm": 20 / 2.5, "fit, cold": 20 / 6, "score and metrics": 4 / 1.5,
        "fit to metrics, warm": 24 / 4, "fit to metrics, cold": 24 / 7.5,
        "process, warm": 130 / 12, "process, cold": 130 / 20, "beside the backbone": 2 / 4,
    }  # fmt: skip
    assert found["parts"]["beside the backbone"]["against"] == "our backbone alone, 6 images"
    assert list(found["programs"]) == [FIRST, COLD, WARM, THEIRS]
    assert found["programs"][FIRST]["decode_s"]["repeats"] == 1
    assert found["programs"][THEIRS]["peak_bytes"]["median"] == 2**32
    assert found["programs"][WARM]["metrics"] == {"image_auroc": 0.5}


def compare(monkeypatch, asked):
    """`compare` with made-up runs of ours: what it found, what it said, which runs were cold."""
    order, said = [], []

    def ours(self, cold=False):
        order.append(cold)
        return figures(3.0 if cold else 0.5, 10.0)

    monkeypatch.setattr(Programs, "ours", ours)
    fitted, variables = make("padim")
    subject = workloads.Subject(
        detector=fitted, variables=variables, images=None, parallel=Parallel(jax.devices()[:1]),
        seed=0, options=workloads.Options(),
    )  # fmt: skip
    return compare_anomalib.compare(subject, asked, said.append), said, order


@pytest.mark.slow
def test_both_run_in_turn_and_theirs_are_processes(fake, tmp_path, parts, monkeypatch):
    found, said, order = compare(monkeypatch, request(fake, tmp_path / "work", parts))
    assert order == [True] + 3 * [True, False]
    assert [line.split(",")[0] for line in said] == 3 * ["ours", "ours", "anomalib"]
    theirs = found["programs"][THEIRS]
    assert theirs["fit_s"] == {"median": 20.0, "min": 20.0, "max": 20.0, "repeats": 3}
    assert 2**20 < theirs["peak_bytes"]["median"] < 2**27 and theirs["process_s"]["median"] > 0
    assert found["parts"]["fit to metrics, warm"]["ratio"] == 30 / 4
    part = found["parts"]["beside the backbone"]
    assert part["theirs_s"]["min"] > 0 and part["against"].endswith("6 images")
    assert found["images"] == [4, 2] and "error" not in found
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.slow
def test_a_later_failure_keeps_the_repeats_before(fake, tmp_path, parts, monkeypatch):
    found, said, _ = compare(monkeypatch, request(fake, tmp_path / "work", parts, seed=13))
    assert "status 1: ValueError: no luck" in found["error"] and found["error"] in said[-1]
    assert found["programs"][THEIRS]["fit_s"]["repeats"] == 1
    (log,) = (tmp_path / "work").glob("processes-*/process.log")
    assert str(log) in found["error"] and log.read_text().strip().endswith("no luck")


def test_the_figures_are_found_by_their_prefix():
    row = {"image_ap:AUPR": 0.5, "pixel_ap:AUPR": 0.25}
    assert anomalib_driver.find_metric(row, "pixel_ap") == 0.25
    with pytest.raises(ValueError):
        anomalib_driver.find_metric(row, "pixel_pro")
