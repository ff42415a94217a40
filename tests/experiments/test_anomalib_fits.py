"""The comparison of whole fits of trained methods, with a made-up anomalib."""

import json
from pathlib import Path

import jax
import pytest

from imvad_jax.benchmarks import anomalib_driver, anomalib_plan, compare_anomalib, workloads
from imvad_jax.benchmarks.anomalib_figures import FIRST, THEIRS, WARM, collect_fits
from imvad_jax.benchmarks.anomalib_processes import Programs, epoch_figures, read_epochs
from imvad_jax.errors import UserError
from imvad_jax.training.parallel import Parallel
from tests.experiments.fake_anomalib import detector, figures, request, write_fake, write_parts
from tests.methods.small import make

EPOCHS = {"epochs": "2"}
LAYERS = "layer1,layer2,layer3"


def plan(method, preset="smoke", weights="random", **overrides):
    overrides = EPOCHS | {key: str(value) for key, value in overrides.items()}
    asked = request("python", Path(), method=method, weights=weights, overrides=overrides)
    return anomalib_plan.make_plan(asked, detector(method, preset, **overrides), "cpu")


@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("stpm", {}, {"model": "stpm", "layers": "layer1,layer2", "settings": {}}),
        ("rd4ad", {"layers": LAYERS, "embedding_channels": 0}, {"model": "rd4ad"}),
        ("fastflow", {}, {"settings": {
            "flow_steps": 2, "conv3x3_only": False, "hidden_ratio": 1.0}}),
        ("cfa", {"layers": LAYERS, "num_negatives": 5}, {"settings": {
            "gamma_c": 1, "gamma_d": 4, "radius": 1e-5, "num_nearest_neighbors": 3,
            "num_hard_negative_features": 5}}),
        ("stpm", {"steps_per_epoch": 3, "epochs": 4}, {"steps_per_epoch": 3, "epochs": 4}),
    ],
)  # fmt: skip
def test_the_driver_is_asked_for_the_same_training(method, overrides, expected):
    found = plan(method, weights="file.safetensors", **overrides)
    args = vars(anomalib_driver.parse(found.arguments))
    wanted = {"epochs": 2, "backbone": "resnet18", "weights": "file.safetensors"} | expected
    assert {key: args[key] for key in wanted} == wanted and found.epochs == wanted["epochs"]
    assert args["batch_size"] == detector(method).config.batch_size


def test_draem_and_csflow_are_given_no_weights_and_say_what_differs():
    found = plan("draem", "official", texture_dir="pictures")
    args = anomalib_driver.parse(found.arguments)
    assert (args.textures, args.weights, args.model) == ("pictures", None, "draem")
    assert not any("noise" in note for note in found.notes)
    assert any("noise" in note for note in plan("draem", "official").notes)
    found = plan("csflow", "official", hidden=64)
    args = anomalib_driver.parse(found.arguments)
    assert args.settings == {"clamp": 3, "n_coupling_blocks": 4, "cross_conv_hidden_channels": 64}
    assert args.weights is None and "at random" in found.notes[0]


def test_another_training_is_named_by_the_flags_that_make_it_the_same():
    (note,) = plan("stpm").notes
    assert note == "anomalib trains with --weight_decay=0.001, --summed_loss=true"
    assert plan("stpm", weight_decay=0.001, summed_loss=True).notes == ()
    assert plan("fastflow", learning_rate=0.001).notes == ()
    assert plan("cfa", layers=LAYERS).notes == ("anomalib does not train the radius",)


def test_kept_features_are_named():
    assert any("--cache_features" in note for note in plan("stpm", cache_features=True).notes)
    assert not any("--cache_features" in note for note in plan("stpm").notes)


@pytest.mark.parametrize(
    ("method", "preset", "overrides", "message"),
    [
        ("cutpaste", "smoke", {}, "cutpaste is not compared; cfa, csflow, draem, fastflow, padim, "
         "patchcore, rd4ad, stpm are$"),
        ("favae", "smoke", {}, "favae is not compared"),
        ("fastflow", "smoke", {"clamp": 3}, "fastflow with clamp=2.0 only"),
        ("cfa", "smoke", {}, "cfa with layers=layer1,layer2,layer3 only"),
        ("cfa", "demo", {}, "cfa with backbone efficientnet_lite0; .* resnet18 or wide_resnet50_2"),
        ("stpm", "demo", {}, "backbone efficientnet_lite0"),
        ("stpm", "smoke", {"dtype": "bfloat16"}, "stpm with dtype=float32 only"),
        ("rd4ad", "official", {}, "wide_embedding=false only on wide_resnet50_2"),
        ("draem", "smoke", {}, "draem with reconstructive_widths=128,256,512,1024,1024 only"),
        ("draem", "official", {"own_textures": 0.5}, "own_textures=0.0 only"),
        ("csflow", "cpu", {}, "backbone resnet18; .* efficientnet_b5_static or"),
        ("stpm", "smoke", {"epochs": 1}, "epochs=1; expected .* stpm's whole fits, 2 or more"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_a_line(method, preset, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        plan(method, preset, **overrides)
    assert error.value.text.startswith("--compare=anomalib: ") and "\n" not in error.value.text


def test_weights_of_an_efficientnet_are_refused():
    with pytest.raises(UserError, match="weights=a.safetensors .* expected random"):
        plan("csflow", "official", weights="a.safetensors")


def test_epochs_are_asked_for_before_anything_is_measured():
    def asked(name, **overrides):
        return {name: (detector(name, **overrides).config, overrides)}

    for fine in (asked("padim"), asked("stpm", epochs=2), asked("cutpaste")):
        anomalib_plan.check_epochs(fine)
    with pytest.raises(UserError, match="epochs is missing; expected the epochs of stpm's"):
        anomalib_plan.check_epochs(asked("padim") | asked("stpm"))


def test_epochs_after_the_first_are_averaged():
    found = epoch_figures([9.0, 4.0, 2.0], 6)
    assert found == {"first_epoch_s": 9.0, "epoch_s": 3.0, "step_s": 0.5, "steps": 6}


def test_epochs_of_ours_are_read_from_its_run(tmp_path):
    config = {"batch_size": 4}
    record = {"method": "stpm", "config": config, "train_files": ["a"] * 9}
    (tmp_path / "config.json").write_text(json.dumps(record))
    rows = [{"epoch": 1, "images_per_s": 2.0}, {"epoch": 2, "images_per_s": 24.0}]
    (tmp_path / "history.json").write_text(json.dumps(rows))
    assert read_epochs(tmp_path) == ([6.0, 0.5], 3)  # 12 images: the last batch is filled up


def fit_figures(seconds, process):
    return figures(0.5, process) | epoch_figures(seconds, 2)


def test_ratios_of_fits_are_of_warm_runs_and_of_the_first():
    theirs = {"fit_s": 30.0, "test_s": 6.0, "process_s": 60.0} | epoch_figures([18.0, 12.0], 2)
    runs = {
        FIRST: [fit_figures([20.0, 4.0], 40.0)],
        WARM: [fit_figures([6.0, 4.0], 20.0)],
        THEIRS: [theirs | {"metrics": {"image_auroc": 0.6}}],
    }
    found = collect_fits(runs, 2)
    assert {work: part["ratio"] for work, part in found["parts"].items()} == {
        "fit of 2 epochs, warm": 30 / 2.5, "fit of 2 epochs, first call": 30 / 2.5,
        "an epoch after the first": 3.0, "a step after the first epoch": 3.0,
        "score and metrics": 4.0, "process, warm": 3.0, "process, first call": 1.5,
    }  # fmt: skip
    assert found["epochs"] == 2 and found["programs"][THEIRS]["steps"] == 2
    assert found["programs"][WARM]["first_epoch_s"]["median"] == 6.0


def compare(monkeypatch, tmp_path, seed):
    """`compare` of STPM with made-up runs of ours, of two steps per epoch: what it found, runs."""
    runs = []

    def ours(self, cold=False):
        runs.append((cold, self.epochs))
        return fit_figures([6.0, 4.0], 10.0)

    monkeypatch.setattr(Programs, "ours", ours)
    fake, parts = write_fake(tmp_path / "python"), write_parts(tmp_path / "parts")
    fitted, variables = make("stpm", epochs=2)
    subject = workloads.Subject(
        detector=fitted, variables=variables, images=None, parallel=Parallel(jax.devices()[:1]),
        seed=0, options=workloads.Options(),
    )  # fmt: skip
    asked = request(
        fake, tmp_path / "work", parts, "stpm", seed=seed, repeats=2, overrides=EPOCHS
    )  # fmt: skip
    return compare_anomalib.compare(subject, asked, lambda text: None), runs


def test_both_fit_in_turn_and_their_epochs_are_read(monkeypatch, tmp_path):
    found, runs = compare(monkeypatch, tmp_path, seed=2)
    assert runs == [(True, 2), (False, 2), (False, 2)]  # the first call, then two warm ones
    theirs = found["programs"][THEIRS]
    assert (theirs["first_epoch_s"]["median"], theirs["epoch_s"]["median"]) == (8.0, 4.0)
    assert theirs["step_s"] == {"median": 2.0, "min": 2.0, "max": 2.0, "repeats": 2}
    assert found["parts"]["an epoch after the first"]["ratio"] == 1.0
    assert found["notes"] and "error" not in found and "--epochs=2" in found["driver"]
    assert not list((tmp_path / "work").iterdir())


def test_trainings_of_other_lengths_are_not_compared(monkeypatch, tmp_path):
    with pytest.raises(UserError, match="it took 7 steps per epoch, ours 2"):
        compare(monkeypatch, tmp_path, seed=7)
