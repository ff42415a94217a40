"""RESULTS.md from a small made-up tree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from imvad_jax.errors import UserError
from imvad_jax.reporting import published
from imvad_jax.reporting.result_files import portable_command, result_path
from imvad_jax.reporting.results import render_results
from tests.reporting.made_up import METRICS, made_up_record

ROOT = Path(__file__).resolve().parents[2]


def write(root, **changes):
    """Writes one result file."""
    metrics = METRICS | changes.pop("figures", {})
    result = made_up_record(notes=[]) | {"metrics": metrics, "timings": {"fit": {"wall_s": 12.34}}}
    result |= changes
    path = root / result_path(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return path


def section(text, title):
    """The lines of a part of the page."""
    return text[text.index(f"### {title}\n") :].split("\n### ")[0].splitlines()


def rows_of(lines):
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines
            if line.startswith("| ")][2:]  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "results"
    for seed, figure in enumerate((0.817, 0.829, 0.841)):
        write(root, seed=seed, figures={"image_auroc": figure})
    baseline = {"backbone": "none", "image_size": 256, "crop_size": 0}
    write(root, method="raw_color", title="raw colour (baseline)", preset="official", overrides={},
          config=baseline, weights=None, seed=0)  # fmt: skip
    write(root, method="spade", title="SPADE", preset="smoke", overrides={"backbone": "resnet18"},
          weights={"source": "random", "sha256": None}, notes=["RANDOM | weights"],
          command="python -m experiments.run --data_dir=/mnt/disk/mvtec")  # fmt: skip
    write(root, category="bottle", seed=0)
    write(root, dataset="folder", category="bolts", seed=0)
    return root


def test_result_path():
    record = made_up_record(overrides={"layers": "layer1,a/b", "backbone": "resnet18"})
    expected = "mvtec_ad/screw/padim/benchmark-resnet18,layers=layer1,a_b-seed3.json"
    assert result_path(record).as_posix() == expected


def test_figures_of_faster_products_are_told_apart(tmp_path):
    root = tmp_path / "results"
    for number, changes in enumerate(({}, {"matmul_precision": "float32"},
                                      {"matmul_precision": "default"})):  # fmt: skip
        write(root, seed=number, **changes)
    paths = [path.name for path in sorted(root.rglob("*.json"))]
    assert sum("products=default" in path for path in paths) == 1
    rows = rows_of(section(render_results(root), "screw"))[:2]
    assert {row[1]: row[4] for row in rows} == {
        "benchmark, sigma=2.0, crop_size=224": "2",
        "benchmark, sigma=2.0, crop_size=224, products at precision default": "1",
    }


def test_rows_and_their_order(tree):
    rows = rows_of(section(render_results(tree), "screw"))
    names = [row[0] for row in rows]
    assert names[:3] == ["PaDiM", "SPADE [1]", "raw colour (baseline)"]
    assert all(", published: " in name for name in names[3:])
    assert rows[0] == ["PaDiM",
                       "benchmark, sigma=2.0, crop_size=224", "ResNet-18", "256 > 224", "3",
                       ".829 ± .012", "1.000 ± .000", ".980 ± .000", "-", ".900 ± .000",
                       "12.3", "-"]  # fmt: skip
    assert rows[1][1].startswith("smoke, ") and rows[1][1].endswith(", **random weights**")
    assert rows[2][2:5] == ["none", "256", "1"]
    assert rows[2][5] == ".778"


def test_published_rows(tree):
    text = render_results(tree)
    rows = rows_of(section(text, "screw"))[3:]
    assert rows[0][0] == "PaDiM, published: benchmark, relabelled (ResNet-18)"
    assert rows[0][5:10] == [".809", ".908", ".978", ".166", ".919"]
    padim = [row for row in rows if row[0].startswith("PaDiM")]
    assert len(padim) > 3
    assert {row[2] for row in padim} == {"ResNet-18"}  # ours is, so no others
    assert sum(row[0].startswith("SPADE") for row in rows) == 1  # no paper used a ResNet-18
    assert published.NOTE in text
    assert "published" not in "\n".join(section(text, "bolts"))


def test_notes_commands_and_overview(tree):
    text = render_results(tree)
    lines = section(text, "screw")
    assert r"[1] RANDOM \| weights  " in lines
    assert "  `python -m experiments.run --data_dir=DIR`" in lines
    assert "/mnt" not in text
    (line,) = [line for line in lines if "seed 2:" in line]
    assert "commit abc123; a machine; jax 0.10.0; weights resnet18.safetensors (sha256 0123" in line
    overview = rows_of(section(text, "Averages"))
    assert [row[4] for row in overview] == ["2 of 2", "1 of 2", "1 of 2"]
    assert overview[0][5] == ".803"  # of .829 and .778, as printed from .8034
    assert "imvad results" in text[:400]


def test_other_settings_make_other_rows(tree):
    write(tree, overrides={"sigma": "4.0"}, config={"backbone": "resnet18", "image_size": 128})
    rows = rows_of(section(render_results(tree), "screw"))
    # What no override names and the preset has otherwise today is named, too.
    settings = ["benchmark, sigma=2.0, crop_size=224",
                "benchmark, sigma=4.0, image_size=128, crop_size=224"]  # fmt: skip
    assert [row[1] for row in rows[:2]] == settings


def test_undefined_for_some_seeds(tree):
    write(tree, seed=1, figures={"image_auroc": None})
    rows = rows_of(section(render_results(tree), "screw"))
    assert rows[0][5] == ".829 ± .017 (2 of 3)"


def test_what_is_known_of_brightness_has_a_table_of_its_own(tmp_path):
    root = tmp_path / "results"
    for seed, correlation in enumerate((0.5, -0.1)):
        matched = {"brightness_matched_image_auroc": 0.75 + seed / 10}
        write(root, seed=seed, figures={"audit_rank_correlation": correlation, **matched})
    write(root, seed=0, preset="smoke")  # says nothing of it
    write(root, category="bottle", seed=0)
    text = render_results(root)
    lines = section(text, "screw")
    after = lines[next(i for i, line in enumerate(lines) if line.startswith("**Brightness.**")) :]
    (row,) = rows_of(after)
    assert row[4:] == ["2", ".200 ± .424", ".800 ± .071", "-", "-", "-", "-"]
    assert "**Brightness.**" not in "\n".join(section(text, "bottle"))


def test_deterministic(tree, tmp_path):
    copy = tmp_path / "copy"
    for path in sorted(tree.rglob("*.json"), reverse=True):
        target = copy / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    assert render_results(tree) == render_results(copy)


def test_no_results(tmp_path):
    assert "No results yet" in render_results(tmp_path)
    with pytest.raises(UserError, match="results directory .*gone: not found"):
        render_results(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("[]", "missing: dataset"), ("{}", "missing: dataset")]
)
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=f"bad.json: .*{message}"):
        render_results(tmp_path)


def test_portable_command():
    command = (
        "python -m experiments.run --data_dir=/a/b/ --workdir=/tmp/r --weights=/w/r18.npz --k=1"
    )
    expected = "python -m experiments.run --data_dir=DIR --workdir=RUN --weights=r18.npz --k=1"
    assert portable_command(command) == expected


def test_program(tree, tmp_path):
    def run(*flags):
        command = [sys.executable, "-m", "experiments.results", f"--results_dir={tree}", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    out = tmp_path / "RESULTS.md"
    missing = run(f"--out={out}", "--check")
    assert (missing.returncode, out.exists()) == (1, False)
    assert run(f"--out={out}").returncode == 0
    assert out.read_text() == render_results(tree)
    assert run(f"--out={out}", "--check").returncode == 0
    out.write_text(out.read_text() + "an edit\n")
    differs = run(f"--out={out}", "--check")
    assert differs.returncode == 1
    assert "differs from" in differs.stderr
    assert len(differs.stderr.splitlines()) == 1
    bad = run(f"--out={tmp_path}/none/RESULTS.md")
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
