"""Tables, picture and page of made-up measurements."""

import itertools
import json

import pytest

from imvad_jax.benchmarks import report as benchmarks
from imvad_jax.errors import UserError
from imvad_jax.reporting.plots import figure_png


def seconds(median):
    return {"median": median, "min": median * 0.5, "max": median * 2, "repeats": 3}


def step(batch, median, flops, complete=True):
    return {
        "batch_size": batch, "devices": 2, "compile_s": 4.0, "flops": flops,
        "flops_complete": complete, "step_s": seconds(median), "latency_s": seconds(2 * median),
        "images_per_s": batch / median, "flops_per_s": flops / median,
    }  # fmt: skip


def made_up(**changes):
    return {
        "method": "stpm", "preset": "cpu", "overrides": {"sigma": "2", "backbone": "resnet18"},
        "config": {"backbone": "resnet18", "image_size": 256, "crop_size": 0},
        "hardware": "A processor, 2 cores", "commit": "0123456789", "others_share": 0.01,
        "product": {"dtype": "float32", "size": 1024, "flops_per_s": 1e11},
        "scoring": [step(1, 0.02, 1e9), step(32, 0.5, 4e10)],
        "training": step(8, 0.25, 2e10, complete=False),
        "fit": {"images": 128, "epochs": 1, "first_s": 9.0, "seconds": seconds(5.0)},
        "end_to_end": {"images": 128, "images_per_s": 60.0}, "memory": {"bytes": 3 * 2**29},
    } | changes  # fmt: skip


def all_cells(text, name):
    """The cells of the table whose heading holds `name`, a row each by its headings."""
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| ") and name in line)
    split = [[c.strip() for c in line.strip("|").split("|")] for line in lines[head:]]
    rows = itertools.takewhile(lambda row: len(row) > 1, split[2:])
    return [dict(zip(split[0], row, strict=True)) for row in rows]


def cells(text, name):
    """The first of `all_cells`."""
    return all_cells(text, name)[0]


def test_rows_hold_medians_and_rates():
    text = benchmarks.format_tables([made_up()], markdown=True)
    row = cells(text, "ms at 1")
    assert row["method"] == "stpm (cpu, resnet18, sigma=2)" and row["pixels"] == "256"
    assert (row["ms at 1"], row["ms a batch"], row["images/s"]) == ("40.0", "1000", "64.0")
    assert (row["GFLOP/s"], row["of product"], row["end to end"]) == ("80.0", "80.0%", "60.0")
    row = cells(text, "ms a step")
    assert (row["ms a step"], row["images/s"], row["fit s"]) == ("250", "32.0", "5.00")
    assert (row["GFLOP/s"], row["of product"]) == (">80.0", ">80.0%")
    assert (row["epochs"], row["peak GiB"]) == ("1", "1.50")


def test_every_batch_size_has_a_row_and_what_was_cut_short_is_shown():
    sizes = [step(1, 0.02, 1e9), step(32, 0.5, 4e10), step(256, 4.0, 3e11)]
    rows = benchmarks.scoring_rows(made_up(scoring=sizes))
    assert [(row[2], row[4]) for row in rows] == [("32", "40.0"), ("256", "40.0")]
    (row,) = benchmarks.scoring_rows(made_up(scoring=sizes[:1], end_to_end=None, left="no time"))
    assert row[2] == "1" and row[7] == "-"


def test_a_device_and_agreement_have_tables_of_their_own(tmp_path):
    product = {"dtype": "float32", "precision": "default", "computed_in": "TF32", "error": 3e-4,
               "size": 8192, "flops_per_s": 2e14}  # fmt: skip
    device = {"devices": 1, "kind": "A GPU", "memory_bytes": 2**36, "versions": {"jax": "0.11"},
              "products": [product], "copies": {"device_bytes_per_s": 2e12,
              "to_device_bytes_per_s": 2e10, "from_device_bytes_per_s": 1e10}}  # fmt: skip
    entry = {"method": "padim", "category": "bottle", "products": "default", "images": 83,
             "score_difference": 3e-2, "map_difference": 1e-3, "tolerance": 2e-2, "within": False,
             "hardware": "1 x A GPU", "commit": None}  # fmt: skip
    for name, part in (("device", device), ("agreement", [entry])):
        file = {"command": "c --out=/tmp/x", "records": [], name: part}
        (tmp_path / f"{name}.json").write_text(json.dumps(file))
    text = benchmarks.render_benchmarks(tmp_path)
    assert "- 1 x A GPU, 64 GiB usable; jax 0.11\n- `c --out=DIR`" in text
    assert cells(text, "computed in")["TFLOP/s"] == "200"
    assert cells(text, "copy")["GB/s"] == "2000"
    row = cells(text, "tolerance")
    assert (row["scores"], row["within"]) == ("3.0e-02", "**no**")
    (tmp_path / "device.json").write_text(json.dumps({"command": "c", "records": [], "device": {}}))
    with pytest.raises(UserError, match="device.json: not a file of imvad benchmark"):
        benchmarks.render_benchmarks(tmp_path)


def test_untrained_methods_have_no_step_and_a_first_fit_is_marked():
    record = made_up(memory=None)
    del record["training"]
    record["fit"] |= {"epochs": None, "seconds": None}
    row = cells(benchmarks.format_tables([record], markdown=True), "ms a step")
    assert row["ms a step"] == row["epochs"] == row["peak GiB"] == "-" and row["fit s"] == "9.00*"


def test_training_steps_have_a_row_with_features_kept_and_one_without():
    def part(theirs, difference):
        return {"ours_s": seconds(2.0), "theirs_s": seconds(theirs), "ratio": theirs / 2,
                "difference": difference}  # fmt: skip

    parts = {
        "backbone": part(9.0, 0.0),
        "training step": part(3.0, 1e-6), "training step, torch.compile": part(2.5, 3e-5),
        "training step, features kept": part(1.0, 2e-6),
    }  # fmt: skip
    found = {"parts": parts, "notes": ["torch.compile: no compiler"]}
    refused = {"parts": {}, "error": "not built here"}
    records = [made_up(compare={"torch_steps": found}), made_up(compare={"torch_steps": refused})]
    text = benchmarks.format_tables(records, markdown=True)
    assert [row["work"] for row in all_cells(text, "theirs / ours")] == ["backbone"]
    names = ("features", "PyTorch s", "compiled s", "compiled / ours", "difference")
    assert [[row[k] for k in names] for row in all_cells(text, "compiled / ours")] == [
        ["every step", "3.00", "2.50", "1.25", "3e-05"], ["kept", "1.00", "-", "-", "2e-06"]
    ]  # fmt: skip
    method = records[0]["method"]
    assert f"- {method}: torch.compile: no compiler\n- {method}: not built here" in text


def test_comparisons_have_tables_of_their_own():
    part = {"ours_s": seconds(2.0), "theirs_s": seconds(3.0), "ratio": 1.5, "difference": 3e-5}
    kept = {
        "kept": {"wall_s": seconds(0.8)}, "recomputed": {"wall_s": seconds(1.0)},
        "wall_ratio": 0.8, "cpu_ratio": 0.9, "bytes_of_an_image": 1.8e6,
    }  # fmt: skip
    record = made_up(compare={"torch": {"parts": {"fit": part}}}, kept_features=kept)
    text = benchmarks.format_tables([record], markdown=True)
    row = cells(text, "theirs / ours")
    assert [row[k] for k in ("work", "against", "theirs / ours", "difference")] == [
        "fit", "torch", "1.50", "3e-05"
    ]  # fmt: skip
    row = cells(text, "CPU ratio")
    assert [row[k] for k in ("kept ms", "wall ratio", "CPU ratio", "MB an image")] == [
        "800", "0.800", "0.900", "1.80"
    ]  # fmt: skip


def test_whole_processes_have_a_table_of_their_own():
    ours = {"decode_s": seconds(0.5), "fit_s": seconds(2.0), "score_s": seconds(1.0),
            "metrics_s": seconds(0.25), "process_s": seconds(9.0), "peak_bytes": seconds(2**30),
            "metrics": {"image_auroc": 0.75, "image_ap": 0.8, "pixel_auroc": 0.9,
                        "pixel_ap": None, "pixel_pro": 1.0}}  # fmt: skip
    theirs = {key: ours[key] for key in ("fit_s", "process_s", "peak_bytes", "metrics")}
    theirs["test_s"] = seconds(33.0)
    part = {"ours_s": seconds(2.0), "theirs_s": seconds(3.0), "ratio": 1.5, "difference": None}
    part |= {"work": "all of it", "against": "the backbone"}
    found = {"parts": {"a key": part}, "programs": {"ours, warm": ours, "anomalib": theirs}}
    text = benchmarks.format_tables([made_up(compare={"anomalib": found})], markdown=True)
    row = cells(text, "process s")
    assert list(row.values())[1:] == [
        "ours, warm", "0.500", "2.00", "1.25", "9.00", "1.00", ".750", ".800", ".900", "-", "1.000"
    ]  # fmt: skip
    assert list(row)[-1] == "PRO"
    other = next(line for line in text.splitlines() if "| anomalib " in line)
    assert [c.strip() for c in other.split("|")][3:6] == ["-", "2.00", "33.0"]
    row = cells(text, "theirs / ours")
    assert (row["work"], row["against"]) == ("all of it", "the backbone")


def test_whole_fits_have_their_own_table_with_the_epochs_beside_the_figure():
    both = {"fit_s": seconds(20.0), "first_epoch_s": seconds(12.0), "epoch_s": seconds(7.0),
            "step_s": seconds(0.5), "process_s": seconds(40.0), "peak_bytes": seconds(2**30),
            "steps": 14}  # fmt: skip
    ours = both | {"decode_s": seconds(0.5), "score_s": seconds(1.0), "metrics_s": seconds(0.25),
                   "metrics": {"image_auroc": 0.75}}  # fmt: skip
    theirs = both | {"test_s": seconds(33.0), "metrics": {"image_auroc": None}}
    found = {"epochs": 3, "notes": ["it has no radius"], "parts": {},
             "programs": {"ours, warm": ours, "anomalib": theirs}}  # fmt: skip
    record = made_up(compare={"anomalib": found})
    text = benchmarks.format_tables([record], markdown=True)
    assert "Whole processes" not in text and "- stpm: it has no radius" in text
    rows = [list(row.values())[1:] for row in all_cells(text, "first epoch s")]
    assert rows == [
        ["ours, warm", "0.500", "20.0", "12.0", "7.00", "500", "1.25", "40.0", "1.00",
         ".750 after 3 epochs"],
        ["anomalib", "-", "20.0", "12.0", "7.00", "500", "33.0", "40.0", "1.00",
         "- after 3 epochs"],
    ]  # fmt: skip


def test_a_failure_is_named_and_leaves_the_others_alone():
    text = benchmarks.format_tables([{"method": "draem", "error": "out of memory"}, made_up()])
    assert "draem: FAILED (out of memory)" in text and "stpm (cpu" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (98765.4, "98765"),
        (99.96, "100.0"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert benchmarks.number(value) == text


def test_the_picture_is_drawn_and_equal_records_give_equal_bytes():
    records = [made_up(), {"method": "draem", "error": "no memory"}]
    first, second = (figure_png(benchmarks.rate_figure(records)) for _ in range(2))
    assert first == second and first.startswith(b"\x89PNG")


def test_the_page_is_made_of_the_files(tmp_path):
    assert benchmarks.render_benchmarks(tmp_path / "absent").endswith("No figures yet.\n")
    found = {"command": "python -m experiments.benchmark ...", "records": [made_up()]}
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    text = benchmarks.render_benchmarks(tmp_path)
    assert "## gpu" in text and "plain float32 matrix product of 1024: 100 GFLOP/s" in text
    assert "commit 0123456789: `python -m experiments.benchmark ...`" in text
    assert "| stpm (cpu, resnet18, sigma=2)" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file of imvad benchmark"),
        ('{"command": ""}', "no 'records'"),
        ('{"command": "", "records": [{"method": "padim"}]}', "not a file of"),
        (json.dumps({"command": "", "records": [made_up(others_share=0.4)]}), "40% of the machine"),
    ],
)
def test_other_files_and_busy_machines_are_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        benchmarks.render_benchmarks(tmp_path)
    assert "a.json" in str(error.value)


def test_an_earlier_file_of_the_same_name_stands_beside(tmp_path):
    def part(median):
        return {"ours_s": seconds(median), "theirs_s": seconds(40.0), "ratio": 4.0,
                "difference": None}  # fmt: skip

    def stored(commit, fit, **parts):
        parts = {"fit, warm": part(fit), **parts}
        record = made_up(commit=commit, compare={"anomalib": {"parts": parts}})
        return json.dumps({"command": "c", "records": [record, {"method": "padim", "error": "e"}]})

    (tmp_path / "before").mkdir()
    (tmp_path / "a.json").write_text(stored("new", 5.0, score=part(1.0)))
    assert "Before" not in benchmarks.render_benchmarks(tmp_path)
    (tmp_path / "before/a.json").write_text(stored("old", 10.0))
    (tmp_path / "before/stpm.md").write_text("It got faster.\n")
    text = benchmarks.render_benchmarks(tmp_path)
    assert "Commit old against new. It got faster." in text
    row = cells(text, "before / now")
    assert list(row.values()) == ["stpm", "fit, warm", "10.0", "5.00", "2.00"]
    assert "| stpm   | score" not in text
