"""The drawn dataset: exact masks, same seed same bytes, hard enough, safe to write."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from imvad_jax.data.demo import CATEGORIES, draw, write_demo_dataset
from imvad_jax.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = {"size": 64, "train": 2, "test_good": 1, "test_per_defect": 1, "progress": False}
DEFECTIVE = [(c, d) for c in CATEGORIES for d in CATEGORIES[c].defects]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_parts(category):
    first, mask = draw(category, "train", "good", 0, size=64)
    assert first.dtype == mask.dtype == np.uint8
    assert first.shape == ((64, 64) if category == "hexnut" else (64, 64, 3))
    assert mask.shape == (64, 64) and not mask.any()
    for other in (("train", "good", 1), ("test", "good", 0)):
        assert (draw(category, *other, size=64)[0] != first).mean() > 0.5
    assert (draw(category, "train", "good", 0, seed=1, size=64)[0] != first).mean() > 0.5


@pytest.mark.parametrize("category,defect", DEFECTIVE)
def test_mask_is_exactly_what_the_defect_changed(category, defect):
    for index in range(8):
        image, mask = draw(category, "test", defect, index)
        twin, none = draw(category, "test", defect, index, flawless=True)
        assert not none.any()
        assert set(np.unique(mask)) == {0, 255}
        differs = (image != twin).reshape(256, 256, -1).any(-1)
        assert not differs[mask == 0].any()
        assert differs[mask > 0].mean() > 0.75  # the rest differs by less than a grey level
        # Large enough to be seen: some 10 x 10 pixels, most of it clearly another light.
        assert 80 <= (mask > 0).sum() <= 0.1 * mask.size
        change = np.abs(image.astype(float) - twin).reshape(256, 256, -1).max(-1)
        assert np.percentile(change[mask > 0], 80) > 8


def test_a_part_looks_the_same_at_every_size():
    for category in CATEGORIES:
        large, small = (draw(category, "train", "good", 3, size=s)[0] for s in (256, 64))
        shrunk = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX))
        assert np.abs(shrunk.astype(float) - small).mean() < 8


@pytest.mark.slow
@pytest.mark.parametrize("category", CATEGORIES)
def test_colours_alone_do_not_give_the_defects_away(category):
    """The raw-colour baseline at the full counts: a Gaussian on RGB per pixel, at 64 x 64."""

    def pixels(split, defect, count):
        for index in range(count):
            image = Image.fromarray(draw(category, split, defect, index)[0]).convert("RGB")
            yield np.asarray(image.resize((64, 64), Image.Resampling.BILINEAR)) / 255.0

    train = np.stack(list(pixels("train", "good", 60)))
    good = list(pixels("test", "good", 20))
    bad = [image for d in CATEGORIES[category].defects for image in pixels("test", d, 8)]
    centred = train - train.mean(0)
    covariance = np.einsum("nhwc,nhwd->hwcd", centred, centred) / (len(train) - 1)
    precision = np.linalg.inv(covariance + 1e-4 * np.eye(3))
    scores = []
    for image in good + bad:
        d = image - train.mean(0)
        distance = np.sqrt(np.einsum("hwc,hwcd,hwd->hw", d, precision, d))
        scores.append(ndimage.gaussian_filter(distance, 1).max())
    assert roc_auc_score([0] * len(good) + [1] * len(bad), scores) < 0.75


def test_layout_counts_and_modes(tmp_path):
    out = write_demo_dataset(tmp_path / "demo", **SMALL)
    assert "CC0" in (out / "license.txt").read_text()
    assert json.loads((out / "demo.json").read_text())["categories"] == sorted(CATEGORIES)
    files = contents(out)
    expected = {"license.txt", "demo.json"}
    for name, category in CATEGORIES.items():
        expected |= {f"{name}/train/good/{i:03d}.png" for i in range(2)}
        expected |= {f"{name}/test/{d}/000.png" for d in ("good", *category.defects)}
        expected |= {f"{name}/ground_truth/{d}/000_mask.png" for d in category.defects}
    assert set(files) == expected
    for name in CATEGORIES:
        with Image.open(out / name / "train/good/000.png") as image:
            assert image.mode == ("L" if name == "hexnut" else "RGB")
            drawn, _ = draw(name, "train", "good", 0, size=64)
            np.testing.assert_array_equal(np.asarray(image), drawn)
    for name, defect in DEFECTIVE:
        with Image.open(out / name / "ground_truth" / defect / "000_mask.png") as mask:
            assert mask.mode == "L" and set(np.unique(np.asarray(mask))) == {0, 255}


def test_same_seed_same_bytes_in_another_process(tmp_path):
    write_demo_dataset(tmp_path / "here", ["hexnut", "tablet"], **SMALL)
    program = (
        "import sys; from imvad_jax.data.demo import write_demo_dataset as w;"
        f"w(sys.argv[1], ['tablet', 'hexnut'], **{SMALL!r})"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "there")],
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
    )
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    write_demo_dataset(tmp_path / "other", ["hexnut"], seed=1, **SMALL)
    here, other = contents(tmp_path / "here"), contents(tmp_path / "other")
    assert all(here[name] != data for name, data in other.items() if name.endswith("/000.png"))


def test_second_call_draws_nothing_and_a_killed_run_is_taken_up(tmp_path, capsys, monkeypatch):
    arguments = {**SMALL, "categories": ["fabric", "hexnut"]}
    out = write_demo_dataset(tmp_path / "demo", **arguments)
    before = contents(out)

    calls = []

    def counted(*args, **options):
        calls.append(args)
        if len(calls) > 2 and args[0] == "hexnut":
            raise KeyboardInterrupt
        return draw(*args, **options)

    monkeypatch.setattr("imvad_jax.data.demo.writer.draw", counted)
    write_demo_dataset(out, **{**arguments, "progress": True})
    assert "there already" in capsys.readouterr().err and not calls

    killed = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        write_demo_dataset(killed, **arguments)
    assert (killed / "fabric").is_dir() and not (killed / "hexnut").exists()
    monkeypatch.undo()
    write_demo_dataset(killed, **arguments)
    assert contents(killed) == before


def test_refusals(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        write_demo_dataset(tmp_path / "full", **SMALL)
    assert contents(tmp_path / "full") == {"thesis.txt": b"mine"}
    with pytest.raises(UserError, match="is a file"):
        write_demo_dataset(tmp_path / "full" / "thesis.txt", **SMALL)

    out = write_demo_dataset(tmp_path / "demo", ["hexnut"], **SMALL)
    with pytest.raises(UserError, match="seed 0, not 3"):
        write_demo_dataset(out, ["hexnut"], seed=3, **SMALL)
    with pytest.raises(UserError, match="categories"):
        write_demo_dataset(out, **SMALL)
    with pytest.raises(UserError, match="did you mean 'hexnut'"):
        write_demo_dataset(tmp_path / "new", ["hexnutt"], **SMALL)
    with pytest.raises(UserError, match="train: found 0"):
        write_demo_dataset(tmp_path / "new", **{**SMALL, "train": 0})
    with pytest.raises(UserError, match="defect of tablet"):
        draw("tablet", "test", "rust", 0)
    assert not (tmp_path / "new").exists()
    (out / "demo.json").write_text("{")
    with pytest.raises(UserError, match="not readable"):
        write_demo_dataset(out, ["hexnut"], **SMALL)


def test_program_says_what_is_wrong_in_one_line(tmp_path):
    def run(*flags):
        return subprocess.run(
            [sys.executable, "-m", "experiments.make_demo_data", *flags],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    missing = run()
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1 and "--out" in missing.stderr
    unknown = run(f"--out={tmp_path / 'demo'}", "--categories=fabrik")
    assert unknown.returncode == 2 and "did you mean 'fabric'" in unknown.stderr
    assert not (tmp_path / "demo").exists()
