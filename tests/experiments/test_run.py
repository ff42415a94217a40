"""The program as a user runs it: in process, on small data, with its files and its errors."""

import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from imvad_jax import sealed
from imvad_jax.evaluation import image_metrics, pixel_metrics
from imvad_jax.programs import program, run
from imvad_jax.training.checkpoint import load_variables
from tests.data.trees import (
    btad_tree,
    kolektor_tree,
    loco_tree,
    mpdd_tree,
    mvtec_tree,
    visa_tree,
    write_image,
)

FIVE = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_pro")


@pytest.fixture
def data(tmp_path):
    return mvtec_tree(tmp_path / "data")


@pytest.fixture
def call(tmp_path, data, capsys):
    """Runs the program with flags; returns exit status, all that it said, error lines."""

    def run_program(*arguments, method="padim", workdir="run", weights="random", data_dir=data):
        given = [
            "run", f"--cache_dir={tmp_path / 'cache'}", "--preset=smoke",
            f"--workdir={tmp_path / workdir}", "--num_devices=2",
        ]  # fmt: skip
        for name, value in {"method": method, "weights": weights, "data_dir": data_dir}.items():
            if value is not None:
                given.append(f"--{name}={value}")
        flags.FLAGS.unparse_flags()
        for name in flags.FLAGS:
            flags.FLAGS[name].unparse()
        status = 0
        try:
            program.parse([*given, *arguments])
            program.guard(run.main)
        except SystemExit as stop:
            status = stop.code
        captured = capsys.readouterr()
        errors = [line for line in captured.err.splitlines() if line.startswith("error:")]
        return status, captured.out + captured.err, errors

    return run_program


def read(path):
    return sealed.read(path)


@pytest.mark.parametrize("method", ["padim", "patchcore", "spade", "raw_color"])
def test_a_run_leaves_everything_behind(call, tmp_path, method):
    status, out, _ = call(method=method)
    assert status == 0 and "memory: about" in out
    top = tmp_path / "run"
    metrics = read(top / "metrics.json")
    assert set(metrics) == {*FIVE, "regions", "regions_vanished"}
    predictions = np.load(top / "predictions.npz", allow_pickle=False)
    masks = np.unpackbits(predictions["mask"])[: np.prod(predictions["mask_shape"])]
    masks = masks.reshape(predictions["mask_shape"])
    again = image_metrics(predictions["image_score"], predictions["label"])
    again |= pixel_metrics(predictions["anomaly_map"], masks)
    assert {name: metrics[name] for name in FIVE} == pytest.approx(again, abs=1e-12)
    assert (metrics["regions"], metrics["regions_vanished"]) == (3, 0)
    assert predictions["path"].tolist()[2] == "bottle/test/scratch/000.png"
    config = read(top / "config.json")
    assert config["preset"] == "smoke" and config["seed"] == 0
    assert config["train_files"][0] == "bottle/train/good/000.png"
    assert ("RANDOM" in str(config["notes"])) == (method != "raw_color")
    stages = read(top / "timings.json")
    assert {"decode", "compile", "fit", "score", "metrics"} <= set(stages)
    assert all({"wall_s", "waiting_s"} <= set(stage) for stage in stages.values())
    assert len(list((top / "heatmaps").glob("*.png"))) == 5
    assert "<html" in (top / "report.html").read_text()


@pytest.mark.slow
def test_an_image_only_method_trained_from_scratch_needs_no_weights(call, tmp_path):
    status, out, _ = call("--epochs=1", method="cutpaste")
    assert status == 0 and "--weights is not used" in out
    top = tmp_path / "run"
    metrics = read(top / "metrics.json")
    assert set(metrics) == set(FIVE) and 0 <= metrics["image_auroc"] <= 1
    assert metrics["pixel_auroc"] is metrics["pixel_ap"] is metrics["pixel_pro"] is None
    assert "anomaly_map" not in np.load(top / "predictions.npz", allow_pickle=False)
    assert len(list((top / "heatmaps").glob("*.png"))) == 5
    assert read(top / "config.json")["weights"] is None
    status, out, _ = call("--epochs=1", method="cutpaste", weights=None)
    assert status == 0 and "not fitting again" in out


def test_running_again_evaluates_the_checkpoint_without_fitting(call, tmp_path):
    call()
    first = (tmp_path / "run/metrics.json").read_bytes()
    (tmp_path / "run/metrics.json").unlink()
    for weights in ("random", None):  # the checkpoint holds the backbone
        status, out, _ = call(weights=weights)
        assert status == 0 and "not fitting again" in out
        assert (tmp_path / "run/metrics.json").read_bytes() == first


def test_another_directory_evaluates_a_checkpoint(call, tmp_path):
    call()
    status, _, _ = call(f"--checkpoint={tmp_path / 'run'}", workdir="other", weights=None)
    assert status == 0
    assert read(tmp_path / "other/metrics.json") == read(tmp_path / "run/metrics.json")
    status, _, (error,) = call(
        f"--checkpoint={tmp_path / 'run'}", method="patchcore", workdir="third", weights=None
    )
    assert status == 2 and "method padim there, patchcore now" in error
    status, _, (error,) = call(
        f"--checkpoint={tmp_path / 'run'}", "--backbone=resnet34", workdir="third", weights=None
    )
    assert status == 2 and "config.backbone resnet18 there, resnet34 now" in error
    assert not (tmp_path / "third").exists()


def test_several_categories_make_a_table_and_share_programs(call, tmp_path, data):
    mvtec_tree(data, "screw", grey=True, train=4)
    status, out, _ = call("--category=all", "--results_dir=" + str(tmp_path / "results"))
    assert status == 0 and "average (2 of 2)" in out
    for name in ("bottle", "screw"):
        assert read(tmp_path / "run" / name / "config.json")["category"] == name
    assert (tmp_path / "run/index.html").is_file()
    assert read(tmp_path / "run/screw/timings.json")["compile"]["programs"] == 0
    results = sorted((tmp_path / "results").rglob("*.json"))
    assert len(results) == 2 and "train_files" not in read(results[0])


def test_predictions_can_be_left_out(call, tmp_path):
    assert call("--nosave_predictions", "--nosave_heatmaps")[0] == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "metrics.json", "timings.json", "audit.json", "checkpoint"}


def test_a_run_says_its_audit_and_scores_matched_brightness(call, tmp_path, data):
    for i in range(4):  # darker than the others
        path = data / "bottle/test/good" / f"dark{i}.png"
        Image.fromarray(np.full((40, 40, 3), 10 + i, np.uint8)).save(path)
    status, out, _ = call("--brightness_matched", method="raw_color")
    assert status == 0
    lines = [line for line in out.splitlines() if line.startswith("audit: ")]
    assert lines[0].startswith("audit: good test images against defective") or "WARNING" in lines[0]
    metrics = read(tmp_path / "run/metrics.json")
    assert {f"brightness_matched_{name}" for name in FIVE} <= set(metrics)
    assert -1 <= metrics["audit_rank_correlation"] <= 1
    found = read(tmp_path / "run/audit.json")
    assert [f"audit: {line}" for line in found["lines"]] == lines[:3]
    assert "Before any network" in (tmp_path / "run/report.html").read_text()
    ranges = read(tmp_path / "run/config.json")["picture_ranges"]
    assert ranges["images"] == 6 and "mean grey" in ranges["numbers"]


def test_full_resolution_and_benchmark_pro(call, tmp_path):
    call()
    status, _, _ = call("--full_resolution_metrics", "--benchmark_pro", workdir="full")
    assert status == 0
    small, full = read(tmp_path / "run/metrics.json"), read(tmp_path / "full/metrics.json")
    assert "pixel_pro_100" in full and full["image_auroc"] == small["image_auroc"]
    assert full["pixel_auroc"] != small["pixel_auroc"]
    assert abs(full["pixel_auroc"] - small["pixel_auroc"]) < 0.1


def test_dry_run_writes_nothing(call, tmp_path):
    status, out, _ = call("--dry_run")
    assert status == 0 and "memory: about" in out and not (tmp_path / "run").exists()


def test_flags_set_any_field(call, tmp_path):
    assert call("--image_size=72", "--crop_size=64", "--sigma=2", "--layers=layer1,layer2")[0] == 0
    config = read(tmp_path / "run/config.json")
    assert config["config"]["layers"] == ["layer1", "layer2"]
    assert config["config"]["sigma"] == 2 and config["overrides"]["crop_size"] == "64"


def test_folder_without_test_images_is_fitted_and_stored(call, tmp_path):
    for i in range(4):
        write_image(tmp_path / "mine/train/good" / f"{i}.png", i)
    status, out, _ = call("--dataset=folder", data_dir=tmp_path / "mine")
    assert status == 0 and "nothing to evaluate" in out and "image AUROC" not in out
    assert (tmp_path / "run/checkpoint").is_dir()
    # A folder of images alone serves as well.
    given = ("--dataset=folder", "--holdout=0.5", "--threshold_quantile=1")
    images = tmp_path / "mine/train/good"
    status, out, _ = call(*given, method="raw_color", workdir="other", data_dir=images)
    assert status == 0 and "2 good images to fit on, 2 to set the threshold" in out
    assert "it flags 0 of them" in out and "imvad predict --workdir=" in out
    found = read(tmp_path / "other/calibration.json")
    assert found["count"] == 2 and found["quantile"] == 1
    status, out, (error,) = call(
        "--dataset=folder", "--holdout=0", method="raw_color", workdir="other", data_dir=images
    )
    assert status == 2 and "holdout 0.5 there, 0.0 now" in error


def test_folder_without_masks_has_image_metrics_only(call, tmp_path, data):
    import shutil

    shutil.rmtree(data / "bottle/ground_truth")
    assert call("--dataset=folder")[0] == 0
    metrics = read(tmp_path / "run/metrics.json")
    assert metrics["image_auroc"] is not None and metrics["pixel_pro"] is None
    assert 0 <= metrics["image_f1"] <= metrics["image_f1_max"] <= 1


# A tree, a category of it, how many images to train on, to test, and of these defective.
OTHERS = {
    "btad": (btad_tree, "03", 4, 4, 2),
    "kolektorsdd": (kolektor_tree, "commutator", 9, 5, 2),
    "mpdd": (mpdd_tree, "tubes", 6, 5, 3),
    "visa": (visa_tree, "pcb1", 4, 4, 2),
}


@pytest.mark.parametrize("dataset", OTHERS)
def test_other_datasets_are_read(call, tmp_path, dataset):
    tree, category, train, test, bad = OTHERS[dataset]
    status, out, _ = call(
        f"--dataset={dataset}", f"--category={category}", "--dry_run", method="raw_color",
        data_dir=tree(tmp_path / "other"),
    )  # fmt: skip
    assert status == 0 and f"{dataset}/{category}" in out
    assert f"{train} good images to fit on, {test} to test ({bad} defective)" in out


def test_loco_with_its_kinds_and_masks_at_full_resolution(call, tmp_path):
    status, _, _ = call(
        "--dataset=mvtec_loco", "--full_resolution_metrics", method="raw_color",
        data_dir=loco_tree(tmp_path / "loco"),
    )  # fmt: skip
    assert status == 0 and all(read(tmp_path / "run/metrics.json")[name] for name in FIVE)
    kinds = np.load(tmp_path / "run/predictions.npz")["defect"].tolist()
    assert kinds == ["good"] * 2 + ["logical_anomalies"] * 2 + ["structural_anomalies"] * 2


@pytest.mark.slow
def test_pictures_of_a_folder_are_used_noted_and_not_kept(call, tmp_path):
    for i in range(3):
        write_image(tmp_path / "textures" / f"{i}.png", i)
    directory = tmp_path / "textures"
    small = ("--epochs=1", "--image_size=32")
    for given, note in (
        ("", "anomaly textures: drawn by the program"),
        (directory, f"anomaly textures: 3 images of {directory}"),
    ):
        workdir = f"run{len(str(given))}"
        status, out, _ = call(f"--texture_dir={given}", *small, method="draem", workdir=workdir)
        assert status == 0 and f"note: {note}" in out
        assert note in read(tmp_path / workdir / "config.json")["notes"]
        assert set(load_variables(tmp_path / workdir)) == {"params", "batch_stats"}
    for path in directory.iterdir():  # a fitted detector is evaluated without them
        path.unlink()
    status, _, _ = call(f"--texture_dir={directory}", *small, method="draem", workdir=workdir)
    assert status == 0


@pytest.mark.parametrize("dry", [[], ["--dry_run"]])
def test_a_folder_of_pictures_that_is_missing_or_empty_is_an_error(call, tmp_path, dry):
    (tmp_path / "empty").mkdir()
    for name, message in (("nowhere", "no such directory"), ("empty", "no image files")):
        status, _, (error,) = call(f"--texture_dir={tmp_path / name}", *dry, method="draem")
        assert status == 2 and message in error and name in error
    assert not (tmp_path / "run").exists()


BAD_FLAGS = {
    "--method=padm": "did you mean 'padim'",
    "--dataset=mvtec": "did you mean 'mvtec_ad'",
    "--backbone=resnet19": "did you mean 'resnet18'",
    "--preset=offical": "did you mean 'official'",
    "--category=bottel": "did you mean 'bottle'",
    "--image_size=big": "--image_size=big: expected a value of type int",
    "--image_size=4": "--image_size=4",
    "--coreset_ratio=0.1": "PaDiMConfig has no such field",
    "--data_dir=nowhere": "nowhere: no such directory",
    f"--data_dir={__file__}": "is a file; expected the folder",
    f"--workdir={__file__}": "is a file; expected a directory",
    "--weights=nowhere.safetensors": "nowhere.safetensors",
    "--weights=": "--weights=hub:timm/resnet18.tv_in1k",
    "--num_devices=99": "--num_devices=99",
    "--seed=-1": "seed",
    "--training_loop=device": "--training_loop=device: padim is not trained",
    "--training_loop=scan": "training_loop",
    "--metod=padim": "did you mean",
    "stray": "unexpected argument 'stray'",
    "--checkpoint=nowhere": "no finished run",
    "--holdout=1": "--holdout=1",
    "--holdout=0.99": "6 good images are too few to hold 6 of them out",
    "--threshold_quantile=95": "expected a number from 0.5 to 1",
    "--batch_size=4000000": "--batch_size",
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags_are_one_clear_line(call, tmp_path, flag):
    status, _, errors = call(flag)
    assert status == 2 and len(errors) == 1
    assert BAD_FLAGS[flag] in errors[0]
    assert not (tmp_path / "run").exists()


def test_a_folder_is_never_guessed_from_the_cache(call, data):
    assert call("--dataset=folder", data_dir=data / "bottle/train/good", method="raw_color")[0] == 0
    for given in ({"workdir": "other"}, {}):
        status, _, (error,) = call("--dataset=folder", data_dir=None, method="raw_color", **given)
        assert status == 2 and "--data_dir is missing" in error and "cache: good" in error
    assert call("--dataset=folder", "--category=good", data_dir=None, method="raw_color")[0] == 0


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def shrink_mask(path):
    from PIL import Image

    Image.new("L", (7, 9)).save(path)


BAD_DATA = {
    "truncated training image": ("train/good/002.png", cut, "002.png: not a readable image"),
    "truncated test image": ("test/scratch/001.png", cut, "scratch/001.png: not a readable"),
    "missing mask": ("ground_truth/scratch/001_mask.png", lambda p: p.unlink(), "mask is missing"),
    "mis-sized mask": ("ground_truth/scratch/001_mask.png", shrink_mask, "7 x 9"),
    "no good test images": (
        "test/good", lambda p: [f.unlink() for f in p.iterdir()] and p.rmdir(), "no good test",
    ),
    "empty category": (
        "train/good", lambda p: [f.unlink() for f in p.iterdir()], "no good images to train on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_clear_line(call, tmp_path, data, case):
    place, damage, message = BAD_DATA[case]
    damage(data / "bottle" / place)
    status, _, errors = call()
    assert status == 2 and len(errors) == 1 and message in errors[0]
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_run_is_left_alone(call, tmp_path):
    call()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    for flag, method in (("--seed=0", "patchcore"), ("--seed=1", "padim"), ("--sigma=1", "padim")):
        status, out, (error,) = call(flag, method=method)
        assert status == 2 and "holds another run" in error and " there, " in error
        assert "images to fit on" not in out  # said before images are read
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}


def test_other_weights_in_the_same_workdir_are_refused(call, tmp_path):
    from flax import traverse_util
    from safetensors.numpy import save_file

    from imvad_jax import backbones
    from imvad_jax.backbones import layout

    template = backbones.get("resnet18").variables_template()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        tensors = {}
        for path, leaf in traverse_util.flatten_dict(template).items():
            shape = layout.torch_shape(path, leaf.shape)
            values = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape)
            tensors[layout.timm_name(path[1:])] = np.abs(values).astype(np.float32) if (
                path[-1] in ("var", "scale")
            ) else values.astype(np.float32)  # fmt: skip
        save_file(tensors, tmp_path / f"{name}.safetensors")
    assert call(weights=tmp_path / "a.safetensors")[0] == 0
    status, _, (error,) = call(weights=tmp_path / "b.safetensors")
    assert status == 2 and "sha256" in error


def test_list_and_help():
    listed = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--list"], capture_output=True, text=True
    )
    assert listed.returncode == 0
    for name in ("padim", "resnet18", "efficientnet_lite0", "folder", "benchmark"):
        assert name in listed.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--methd=padim"], capture_output=True, text=True
    )
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.count("error:") == 1
