"""Metrics side by side: the plain PRO on maps small enough to compute by hand, and the record."""

import jax
import numpy as np
import pytest

from imvad_jax.benchmarks import compare_metrics, workloads
from imvad_jax.benchmarks.report import format_tables
from imvad_jax.data.category import CategoryData
from imvad_jax.data.decode import Geometry
from imvad_jax.errors import UserError
from imvad_jax.evaluation import pixel_metrics
from imvad_jax.training.parallel import Parallel
from tests.evaluation.drawn import ragged
from tests.reporting.test_benchmarks import cells, made_up
from tests.training import toy

ONCE = workloads.Options(repeats=2)


@pytest.fixture(scope="module")
def subject():
    detector, variables = toy.make(batch_size=2)
    images = workloads.random_images(2, 64, 0)
    return workloads.Subject(
        detector=detector, variables=variables, images=images,
        parallel=Parallel(jax.devices()[:1]), seed=0, options=ONCE,
    )  # fmt: skip


def test_the_plain_pro_by_hand():
    """Good scores 0 ... 99: threshold k is k, at a rate of 1 - (k + 1) / 100."""
    maps = np.concatenate([np.arange(100), [99.5, 50.0, 99.5, 0.0]]).astype(np.float32)
    masks = np.zeros((1, 104, 1), bool)
    masks[0, 100:102] = masks[0, 103:] = True  # two regions: half and none of them above 99
    maps[102] = 99  # good, as the 100 before
    found = compare_metrics.reference_pro(maps.reshape(masks.shape), masks)
    assert found == pytest.approx(0.25, abs=1e-12)  # flat up to .3: a half of one of two regions


@pytest.mark.parametrize("levels", [0, 6])
def test_the_plain_pro_is_ours_with_as_many_thresholds(levels):
    maps, masks = ragged(3, levels=levels)
    ours = pixel_metrics(maps, masks, benchmark_pro=True)
    assert compare_metrics.reference_pro(maps, masks) == pytest.approx(
        ours["pixel_pro_100"], abs=1e-12
    )
    assert abs(ours["pixel_pro_100"] - ours["pixel_pro"]) > 1e-4  # not the exact one


def test_drawn_maps_are_compared_figure_by_figure(subject, monkeypatch):
    monkeypatch.setattr(compare_metrics, "DRAWN_IMAGES", 8)
    found = compare_metrics.compare(subject, None)
    assert (found["images"], found["size"], found["images_from"]) == (8, 64, "drawn")
    assert list(found["metrics"]) == [
        "image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_pro", "pixel_pro_100"
    ]  # fmt: skip
    for key, figure in found["metrics"].items():
        if key == "pixel_pro":
            assert figure["theirs"] is None and figure["difference"] is None
            assert 0.5 < figure["ours"] < 1
        else:
            assert figure["difference"] < 1e-9, key
            assert figure["ours"] == pytest.approx(figure["theirs"], abs=1e-9)
    parts = found["parts"]
    assert list(parts) == ["all", "image", "pixel", "pro"]
    for side in ("ours_s", "theirs_s"):
        assert parts["all"][side]["min"] > 0 and parts["all"][side]["repeats"] == 2
    text = format_tables([made_up(compare={"metrics": found})], markdown=True)
    row = cells(text, "metrics of")
    assert (row["metrics of"], row["by"]) == ("8 images, drawn", "ours")
    assert row["PRO"] != row["PRO (100)"] and "-" not in (row["PRO"], row["PRO (100)"])
    theirs = next(line for line in text.splitlines() if "| scikit-learn, PRO code" in line)
    cell = [c.strip() for c in theirs.split("|")][4:-1]
    assert cell == [*list(row.values())[3:7], "-", row["PRO (100)"]]


def category(labels, masks):
    """Test images of the toy's size with these labels and masks."""
    images = workloads.random_images(len(labels), 64, 1)
    good = images.take([0])
    names = [str(number) for number in range(len(labels))]
    defects = ["scratch" if label else "good" for label in labels]
    return CategoryData(
        "folder", "parts", Geometry(64, 64), good, images, ["0"], names, defects, masks, None
    )


def test_a_category_is_scored_and_compared(subject):
    masks = np.zeros((4, 64, 64), bool)
    masks[2, 5:9, 5:20] = masks[3, 30:40, 30:40] = masks[3, 2, 60] = True
    found = compare_metrics.compare(subject, category([0, 0, 1, 1], masks))
    assert found["images_from"] == "folder/parts" and found["images"] == 4
    assert found["parts"]["all"]["difference"] < 1e-6
    without = compare_metrics.compare(subject, category([0, 1], None))
    assert list(without["parts"]) == ["image"] and without["size"] is None
    text = format_tables([made_up(compare={"metrics": without})], markdown=True)
    row = cells(text, "metrics of")
    assert row["metrics of"] == "2 images, folder/parts" and row["pixel AP"] == row["PRO"] == "-"


def test_one_kind_alone_is_refused(subject):
    with pytest.raises(UserError, match="folder/parts has 2 test images, 0 of them defective"):
        compare_metrics.compare(subject, category([0, 0], None))
