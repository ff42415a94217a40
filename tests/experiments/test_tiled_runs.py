"""Small defects on large pictures, in tiles: fit, calibrate, evaluate, predict."""

import csv

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from imvad_jax import api, sealed
from imvad_jax.data.decode import Geometry, to_array
from imvad_jax.evaluation import image_metrics, pixel_metrics, read_calibration
from imvad_jax.model import load
from imvad_jax.programs import program, run
from imvad_jax.reporting.predictions_file import unpack_maps, unpack_masks
from imvad_jax.runs import identity, predictor
from imvad_jax.training.parallel import Parallel

SIZE = (200, 150)  # width and height
SPOT = (131, 87, 6)  # left, top and side of the defect


def picture(seed: int, size=SIZE, spot=None) -> Image.Image:
    """A grey part with some noise, every one the same but for that."""
    noise = np.random.default_rng(seed).normal(120, 6, (size[1], size[0], 3))
    if spot:
        left, top, side = spot
        noise[top : top + side, left : left + side] = (235, 40, 40)
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


def write_parts(top, size=SIZE, spot=SPOT, train=10, test=4):
    """Good images of two sizes, test images and masks."""
    larger = (size[0] + 17, size[1] + 8)
    for folder, count, mark in (
        ("train/good", train, 0),
        ("test/good", test, 1),
        ("test/red", test, 2),
    ):
        (top / folder).mkdir(parents=True)
        for i in range(count):
            image = picture(100 * mark + i, larger if i % 2 else size, spot if mark == 2 else None)
            image.save(top / folder / f"{i}.png")
    (top / "ground_truth/red").mkdir(parents=True)
    left, top_, side = spot
    for i in range(test):
        with Image.open(top / f"test/red/{i}.png") as image:
            mask = np.zeros(image.size[::-1], np.uint8)
        mask[top_ : top_ + side, left : left + side] = 255
        Image.fromarray(mask).save(top / f"ground_truth/red/{i}.png")
    return top


def call(*arguments):
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    given = ["run", "--cache_dir=", "--preset=smoke", "--num_devices=2", "--method=raw_color",
             "--dataset=folder", "--batch_size=8"]  # fmt: skip
    try:
        program.parse([*given, *arguments])
        return program.guard(run.main)
    except SystemExit as stop:
        return stop.code


TILES = ("--tile=64", "--overlap=16", "--holdout=0.3", "--threshold_quantile=1")


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A finished run in tiles, its flags and its data."""
    top = tmp_path_factory.mktemp("tiled")
    parts = write_parts(top / "parts")
    given = (f"--data_dir={parts}", f"--workdir={top / 'run'}")
    assert call(*TILES, *given) == 0
    return top / "run", given, parts


def read(path):
    return sealed.read(path)


def test_a_run_in_tiles_evaluates_whole_pictures(tiled):
    run_dir, _, _ = tiled
    record, metrics = read(run_dir / "config.json"), read(run_dir / "metrics.json")
    assert (record["tile"], record["overlap"]) == (64, 16)
    assert len(record["train_files"]) == 7 and len(read_calibration(run_dir).scores) == 3
    assert any("in tiles of 64 px that overlap by 16" in note for note in record["notes"])
    predictions = np.load(run_dir / "predictions.npz")
    maps, masks = unpack_maps(predictions), unpack_masks(predictions)
    # smoke sees 64 px: a map as fine as the picture
    assert {one.shape for one in maps} == {(150, 200), (158, 217)} and len(maps) == len(masks) == 8
    assert [int(mask.sum()) for mask in masks] == [0] * 4 + [SPOT[2] ** 2] * 4
    again = image_metrics(predictions["image_score"], predictions["label"])
    again |= pixel_metrics(maps, masks)
    assert {name: metrics[name] for name in again} == pytest.approx(again, abs=1e-12)
    assert metrics["image_auroc"] == 1 and metrics["pixel_ap"] > 0.5
    drawn = list((run_dir / "heatmaps").iterdir())
    assert len(drawn) == 8 and "tiles of 64 px" in (run_dir / "report.html").read_text()


def test_metrics_at_full_resolution(tiled, tmp_path):
    run_dir, (data, _), _ = tiled
    given = (f"--checkpoint={run_dir}", "--full_resolution_metrics", *TILES[:2])
    assert call(*given, data, f"--workdir={tmp_path / 'full'}") == 0
    full, small = read(tmp_path / "full/metrics.json"), read(run_dir / "metrics.json")
    assert full["pixel_ap"] == pytest.approx(small["pixel_ap"])  # maps were of the pictures' sizes


def test_other_tiles_are_another_run(tiled, tmp_path, capsys):
    run_dir, given, _ = tiled
    before = (run_dir / "config.json").read_bytes()
    for tiles, message in (
        (("--tile=64", "--overlap=8"), "overlap 16 there, 8 now"),
        (("--tile=48",), "tile 64 there, 48 now; overlap 16 there, 6 now"),
    ):
        assert call(*tiles, *TILES[2:], *given) == 2
        assert message in capsys.readouterr().err
    assert call("--tile=48", f"--checkpoint={run_dir}", given[0], f"--workdir={tmp_path}/x") == 2
    assert "holds another detector (tile 64 there, 48 now" in capsys.readouterr().err
    stored = read(run_dir / "config.json")
    whole = {key: value for key, value in stored.items() if key not in ("tile", "overlap")}
    found = identity.difference(stored, whole)  # of before there were tiles
    assert found == "tile 64 there, 0 now; overlap 16 there, 0 now"
    assert not identity.difference(whole, whole | {"tile": 0, "overlap": 0})
    assert (run_dir / "config.json").read_bytes() == before
    assert call(*TILES, *given) == 0
    assert "not fitting again" in capsys.readouterr().err


BAD_FLAGS = {
    ("--tile=4",): "--tile=4: expected at least 8",
    ("--tile=64", "--overlap=64"): "--overlap=64: expected 0 to 63",
    ("--overlap=8",): "--overlap: needs --tile",
    ("--tile=151",): "200 x 150 pixels, smaller than a tile; expected at least 151 x 151",
    ("--tile=64", "--crop_size=48"): "add --crop_size=0",
    ("--tile=64", "--num_processes=2"): "--tile: ",
    ("--tile=large",): "--tile",
}


@pytest.mark.parametrize("given", BAD_FLAGS)
def test_bad_flags_are_one_clear_line(tiled, tmp_path, capsys, given):
    assert call(*given, tiled[1][0], f"--workdir={tmp_path / 'new'}") == 2
    (error,) = [s for s in capsys.readouterr().err.splitlines() if s.startswith("error:")]
    assert BAD_FLAGS[given] in error and not (tmp_path / "new").exists()


def predict(run_dir, paths, output, **options):
    model = load(run_dir, Parallel(jax.devices()[:2]))
    predictor.predict(model, paths, output, predictor.Options(**options))
    results = read(output / "results.json")
    return results, {image["file"]: image for image in results["images"]}


def test_prediction_uses_the_tiles_of_the_run(tiled, tmp_path):
    run_dir, _, parts = tiled
    picture(7, (63, 90)).save(tmp_path / "small.png")
    paths = [*sorted((parts / "test/red").iterdir()), *sorted((parts / "test/good").iterdir())]
    results, images = predict(run_dir, [*map(str, paths), str(tmp_path / "small.png")],
                              tmp_path / "out")  # fmt: skip
    (bad,) = results["unreadable"]
    assert bad["file"].endswith("small.png") and "smaller than a tile" in bad["error"]
    assert results["tiles"] == {"tile": 64, "overlap": 16}
    assert "tiles of 64 pixels" in (tmp_path / "out/index.html").read_text()
    stored = np.load(run_dir / "predictions.npz")
    expected = dict(zip(stored["path"].tolist(), stored["image_score"].tolist()))
    left, top, side = SPOT
    for name, image in images.items():
        red = "/red/" in name
        short = name[name.index("test/") :]
        assert image["raw_score"] == pytest.approx(expected[short], rel=1e-5)
        with Image.open(tmp_path / "out" / image["heatmap"]) as heatmap:
            assert heatmap.size == (image["width"], image["height"])
        if red:
            assert image["verdict"] == "defective"
            box = np.array(image["regions"][0]["box"])
            assert np.abs(box - (left, top, left + side, top + side)).max() <= 3
    again, _ = predict(run_dir, list(map(str, paths)), tmp_path / "two", batch_size=2)
    assert [i["raw_score"] for i in again["images"]] == pytest.approx(
        [i["raw_score"] for i in results["images"]], rel=1e-5
    )


@pytest.mark.slow
def test_a_tiny_defect_on_a_large_part_is_found_in_tiles_only(tmp_path):
    """12 pixels on 1500 x 1100 in blotches of 20 pixels: a grid of 64 over all of it averages more
    than two blotches, one over a tile of 256 pixels a fifth of one.
    """
    size, spot, good = (1500, 1100), (902, 413, 12), 20

    def blotches(seed: int) -> Image.Image:
        coarse = np.random.default_rng(seed).normal(120, 10, (55, 75)).clip(0, 255)
        return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)

    (tmp_path / "parts").mkdir()
    pictures = [blotches(seed) for seed in range(good + 1)]
    pictures[-1].paste(230, (*spot[:2], spot[0] + spot[2], spot[1] + spot[2]))
    for number, image in enumerate(pictures[:-1]):
        image.save(tmp_path / f"parts/{number}.bmp")
    pictures[-1].save(tmp_path / "red.bmp")
    given = (f"--data_dir={tmp_path / 'parts'}", "--holdout=0.3", "--threshold_quantile=1")
    given = (*given, "--image_size=64", "--grid_size=64", "--batch_size=32")
    assert call(*given, "--tile=256", "--overlap=32", f"--workdir={tmp_path / 'run'}") == 0
    _, images = predict(tmp_path / "run", [str(tmp_path / "red.bmp")], tmp_path / "out")
    found, threshold = images["red.bmp"], read_calibration(tmp_path / "run").image.threshold
    assert found["verdict"] == "defective" and found["raw_score"] > 1.5 * threshold
    left, top, right, bottom = found["regions"][0]["box"]
    assert (left, top) <= spot[:2] and abs(left - 902) <= 8 and abs(top - 413) <= 8
    assert abs(right - 914) <= 8 and abs(bottom - 425) <= 8
    with (tmp_path / "out/results.csv").open(encoding="utf-8-sig") as file:
        (line,) = csv.DictReader(file)
    assert [int(line[key]) for key in ("left", "top", "right", "bottom")] == [
        left, top, right, bottom,
    ]  # fmt: skip
    # Looked at whole the same method scores it as it does good parts.
    whole = np.stack([to_array(image, Geometry(64, 64)) for image in pictures])
    model = api.fit(api.make("raw_color", image_size=64, batch_size=32), whole[:14])
    scores, _ = api.score(model, whole[14:])
    assert scores[-1] < 1.1 * scores[:-1].max()


def test_from_python(tmp_path, tiled):
    parts = str(tiled[2])
    unfitted = api.make("raw_color", image_size=32, grid_size=16, batch_size=8)
    data = api.load_data(parts, unfitted, tile=64, overlap=16)
    model = api.fit(unfitted, data.train)
    scores, maps = api.score(model, data.test)
    assert scores.shape == (8,) and [one.shape for one in maps[:2]] == [(75, 100), (79, 108)]
    assert image_metrics(scores, data.labels)["image_auroc"] == 1
    assert pixel_metrics(maps, data.masks)["pixel_auroc"] > 0.9
    api.save(model, tmp_path / "model")
    loaded = api.load(tmp_path / "model")
    assert loaded.tiling == model.tiling == data.tiling
    again = api.score(loaded, api.load_data(parts, loaded).test)
    np.testing.assert_array_equal(again.image, scores)
    other = api.load_data(parts, loaded, tile=64)
    with pytest.raises(api.UserError, match="are not the model's"):
        api.score(loaded, other.test)
