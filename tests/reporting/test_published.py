"""The published table and its correction."""

import csv
import statistics
from collections import defaultdict
from importlib import resources

import pytest

from imvad_jax.reporting import published
from imvad_jax.reporting.metric_names import METRICS

CATEGORIES = [
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill",
    "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
]  # fmt: skip


def printed_rows() -> list[dict]:
    """The benchmark's table as printed: `method, metric, printed_column, category, value`."""
    file = resources.files("imvad_jax.reporting").joinpath("published/benchmark_vanilla.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return [row | {"value": float(row["value"])} for row in rows]


def test_relabelling():
    assert published.benchmark("padim", "screw", "image_auroc") == 0.809
    printed = {
        (row["method"], row["metric"], row["printed_column"]): row["value"]
        for row in printed_rows()
    }
    assert printed["padim", "image_auroc", "zipper"] == 0.809
    assert printed["padim", "image_auroc", "screw"] == 0.922


def test_columns_follow_the_order_of_numbers_sorted_as_text():
    order = [CATEGORIES[number] for number in sorted(range(15), key=str)]
    for row in printed_rows():
        if row["printed_column"] == "average":
            assert row["category"] == "average"
            continue
        place = CATEGORIES.index(row["printed_column"])
        expected = order[place] if row["method"] in published.RELABELLED else CATEGORIES[place]
        assert row["category"] == expected


def test_averages_are_means_but_for_two_misprints():
    values, averages = defaultdict(list), {}
    for row in printed_rows():
        key = row["method"], row["metric"]
        if row["category"] == "average":
            averages[key] = row["value"]
        else:
            values[key].append(row["value"])
    assert all(len(row) == 15 for row in values.values())
    # Figures are rounded to .001, and the averages were made before that.
    wrong = {key for key in averages if abs(averages[key] - statistics.mean(values[key])) > 0.0011}
    assert wrong == set(published.MISPRINTED_AVERAGES)
    for (method, metric), corrected in published.MISPRINTED_AVERAGES.items():
        assert corrected == round(statistics.mean(values[method, metric]), 3)
        assert published.benchmark(method, "average", metric) == corrected


def test_every_method_is_whole():
    assert set(published.BENCHMARK_BACKBONES) == {r["method"] for r in printed_rows()}
    for method in published.BENCHMARK_BACKBONES:
        for category in CATEGORIES:
            for metric in METRICS:
                missing = method in ("csflow", "cutpaste") and metric.key.startswith("pixel")
                value = published.benchmark(method, category, metric.key)
                assert (value is None) == missing


def test_unknown_is_none():
    assert published.benchmark("padim", "teapot", "image_auroc") is None
    assert published.rows("raw_color", "screw") == []
    assert published.benchmark_backbone("raw_color") == "not stated"


def test_rows_start_with_the_benchmark():
    rows = published.rows("padim", "screw")
    assert [row["source"] for row in rows[:5]] == ["benchmark, relabelled"] * 5
    assert {row["metric"] for row in rows[:5]} == {metric.key for metric in METRICS}
    assert {
        "source": "xiahaifeng1995/PaDiM README",
        "backbone": "resnet18",
        "metric": "image_auroc",
        "value": 0.745,
    } in rows
    assert published.rows("patchcore", "screw")[0]["source"] == "benchmark, as printed"


def test_tabulate_gathers_by_source_and_backbone():
    table = published.tabulate("padim", "bottle")
    assert table[0][:2] == ("benchmark, relabelled", "resnet18")
    assert table[0][2]["pixel_pro"] == 0.950
    assert len({entry[:2] for entry in table}) == len(table)


def test_papers_do_not_repeat_the_benchmark():
    rows = published._read("papers.csv")
    assert len(rows) == 1974
    assert not any("relabelled" in row["source"].lower() for row in rows)
    assert not any("as printed" in row["source"] for row in rows)
    assert all(0 <= float(row["value"]) <= 1 for row in rows)
    assert {row["method"] for row in rows} <= set(published._METHOD_KEYS)
    assert {row["backbone"] for row in rows} <= set(published._BACKBONE_TITLES)


@pytest.mark.parametrize(
    ("method", "words"),
    [("padim", "ResNet-18"), ("patchcore", "WRN50-2"), ("csflow", "EfficientNet-B5"),
     ("cutpaste", "ViT-B/16"), ("favae", "VGG-16")],
)  # fmt: skip
def test_backbones(method, words):
    assert published.benchmark_backbone(method).startswith(words)
