"""The table: what is read from a work directory, its means, and the files made of it."""

import csv
import io
import json
import re
import statistics

import pytest

from imvad_jax.errors import UserError
from imvad_jax.reporting import compare, published
from imvad_jax.reporting.grid import AVERAGE, LABELS, load_grid
from imvad_jax.reporting.grid_page import colour, page_context, write_grid_page
from imvad_jax.reporting.grid_text import as_json, averages, markdown, tidy_csv
from tests.reporting.cells import record_of, write_cell

PADIM = {  # category: seed: five figures
    "bottle": {0: [0.9, 0.8, 0.7, 0.6, 0.5], 1: [1.0, 0.8, 0.7, 0.6, 0.5]},
    "screw": {0: [0.7, 0.8, 0.7, 0.6, 0.5], 1: [0.7, 0.8, 0.7, 0.6, 0.5]},
}
HOSTILE = "unreadable: <script>alert('x')</script> a|b.png"


@pytest.fixture
def workdir(tmp_path):
    """PaDiM on two categories, PatchCore on one (the other failed), a method without maps."""
    root = tmp_path / "table"
    for category, seeds in PADIM.items():
        for seed, figures in seeds.items():
            write_cell(root, "padim", category, seed, figures)
        write_cell(root, "csflow", category, 0, [0.6, 0.6, None, None, None])
        write_cell(root, "raw_color", category, 0, [0.5, 0.5, 0.5, 0.25, 0.125])
    write_cell(root, "patchcore", "bottle", 0, [1.0, 1.0, 0.99, 0.7, 0.9])
    write_cell(root, "patchcore", "screw", 0, error=HOSTILE)
    write_cell(root, "stpm", "screw", 0)  # begun, not finished
    return root


@pytest.fixture
def grid(workdir):
    return load_grid(workdir)


def row_of(grid, method):
    return next(row for row in grid.rows if row.method == method)


def lines_of(text):
    """The lines of the first Markdown table, cells stripped."""
    lines = [line for line in text.split("\n\n")[2].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_states_and_order(grid):
    assert [row.method for row in grid.rows] == [
        "csflow", "padim", "patchcore", "stpm", "raw_color",
    ]  # fmt: skip
    assert grid.categories == ("bottle", "screw")
    assert [cell.path for cell in grid.in_state("failed")] == ["patchcore/screw/cpu-seed0"]
    assert [cell.path for cell in grid.in_state("not finished")] == ["stpm/screw/cpu-seed0"]
    assert len(grid.cells) == 11 and len(grid.in_state("finished")) == 9
    assert grid.in_state("finished")[0].seconds == 2.0


def test_means_and_spreads(grid):
    padim = row_of(grid, "padim")
    figure = padim.figure("bottle", "image_auroc")
    assert (figure.value, figure.count, figure.of) == (pytest.approx(0.95), 2, 2)
    assert figure.spread == pytest.approx(statistics.stdev([0.9, 1.0]))
    average = padim.average("image_auroc", 2)
    assert average.value == pytest.approx((0.95 + 0.7) / 2)
    assert average.spread == pytest.approx(statistics.stdev([(0.9 + 0.7) / 2, (1.0 + 0.7) / 2]))
    # The failed category is not averaged over, and that is said.
    average = row_of(grid, "patchcore").average("image_ap", 2)
    assert (average.value, average.count, average.of, average.spread) == (1.0, 1, 2, None)
    assert row_of(grid, "csflow").average("pixel_pro", 2).value is None


def test_markdown_is_the_published_form(grid):
    text = markdown(grid)
    lines = lines_of(text)
    assert lines[0] == ["method", "metric", "bottle", "screw", "average"]
    assert [line[1] for line in lines[2:7]] == list(LABELS.values())
    by = {(lines[2 + 5 * (i // 5)][0], line[1]): line[2:] for i, line in enumerate(lines[2:])}
    assert by["PaDiM", "Image AUC"] == [".950 ± .071", ".700 ± .000", ".825 ± .035"]
    assert by["CS-Flow", "Pixel PRO"] == ["-", "-", "-"]
    assert by["PatchCore", "Pixel AP"] == [".700", "failed", ".700 (1 of 2)"]
    assert by["stpm", "Image AP"] == ["", "", "-"]
    assert lines[-5][0] == "raw colour (baseline)"
    assert "9 of 11 cells finished" in text and "## Failed" in text
    assert r"&lt;script>alert('x')&lt;/script> a\|b.png" in text
    assert "published" not in text
    assert "PatchCore" in averages(grid) and ".700 (1 of 2)" in averages(grid)


def test_some_seeds_failed(tmp_path):
    write_cell(tmp_path, "padim", "screw", 0, [0.7] * 5)
    write_cell(tmp_path, "padim", "screw", 1, error="no memory")
    (row,) = load_grid(tmp_path).rows
    assert row.figure("screw", "image_ap").of == 2
    assert ".700 (1 of 2 seeds)" in markdown(load_grid(tmp_path))
    cell = page_context(load_grid(tmp_path))["groups"][0]["lines"][0]["cells"][0]
    assert cell["errors"] == "seed 1: no memory" and cell["state"] == "finished"


def test_compare_adds_published_rows_with_their_backbones_and_the_note(grid):
    text = markdown(grid, compare=True)
    lines = lines_of(text)
    start = next(i for i, line in enumerate(lines) if line[0] == "PaDiM")
    assert lines[start + 1][1:] == [
        "published: benchmark, relabelled (ResNet-18)", ".994", ".809", ".901",
    ]  # fmt: skip
    assert lines[start + 2][1:] == ["difference", "-.044", "-.109", "-.077"]
    start = next(i for i, line in enumerate(lines) if line[0] == "PatchCore")
    names = [line[1] for line in lines[start : start + 5]]
    # The table's row has another network than ours, so one with ours stands beside it.
    assert names == [
        "Image AUC", "published: benchmark, as printed (WRN50-2)", "difference",
        "published: anomalib v2.6 README (patchcore) (ResNet-18)", "difference",
    ]  # fmt: skip
    # Ours is over bottle alone, and so is what it is compared with.
    assert lines[start + 1][2] == lines[start + 1][4] == "1.000"
    assert published.NOTE in text


def test_the_published_average_stands_beside_a_whole_row_only(tmp_path):
    for category in published.categories():
        write_cell(tmp_path, "rd4ad", category, 0, [0.9] * 5)
    grid = load_grid(tmp_path)
    (row,) = grid.rows
    table = compare.benchmark(grid, row)
    assert table.value(row, AVERAGE, "image_auroc") == 0.988  # the misprint .986 corrected
    assert table.value(row, AVERAGE, "pixel_ap") == published.benchmark(
        "rd4ad", "average", "pixel_ap"
    )
    (tmp_path / "rd4ad/zipper/cpu-seed0/metrics.json").unlink()
    grid = load_grid(tmp_path)
    fourteen = [published.benchmark("rd4ad", c, "pixel_ap") for c in published.categories()[:-1]]
    (row,) = grid.rows
    assert table.value(row, AVERAGE, "pixel_ap") == pytest.approx(statistics.mean(fourteen))


def test_nothing_is_compared_on_another_dataset(tmp_path):
    write_cell(tmp_path, "padim", "bottle", 0, [0.9] * 5, dataset="folder")
    write_cell(tmp_path, "raw_color", "bottle", 0, [0.7] * 5, dataset="folder")
    grid = load_grid(tmp_path)
    assert compare.benchmark(grid, grid.rows[0]) is None
    assert "published" not in markdown(grid, compare=True)
    context = page_context(grid, compare=True)
    assert context["reference"] == "baseline" and not context["compare"]
    cell = context["groups"][0]["lines"][0]["cells"][0]
    assert cell["differences"] == {"baseline": "0.200000"}
    assert cell["colour"].startswith("rgba(0, 114, 178")


def test_csv_is_tidy(grid):
    rows = list(csv.DictReader(io.StringIO(tidy_csv(grid, compare=True))))
    by = {(row["method"], row["metric"], row["category"]): row for row in rows}
    assert len(by) == len(rows)
    row = by["padim", "image_auroc", "screw"]
    assert (row["value"], row["seeds"], row["spread"]) == ("0.700000", "2", "0.000000")
    assert (row["published"], row["published_backbone"]) == ("0.809000", "resnet18")
    assert row["published_source"] == "benchmark, relabelled"
    assert float(row["difference"]) == pytest.approx(-0.109)
    row = by["patchcore", "image_auroc", "bottle"]
    assert (row["backbone"], row["published_backbone"]) == ("resnet18", "wide_resnet50_2")
    assert row["same_backbone_source"] == "anomalib v2.6 README (patchcore)"
    assert by["patchcore", "pixel_ap", AVERAGE]["categories"] == "1 of 2"
    row = by["patchcore", "image_auroc", "screw"]
    assert (row["value"], row["error"]) == ("", HOSTILE)
    assert ("stpm", "image_auroc", "screw") not in by
    assert "difference" not in next(csv.reader(io.StringIO(tidy_csv(grid))))


def test_json(grid):
    table = json.loads(as_json(grid))
    assert table["about_the_published_figures"] == published.NOTE
    padim = next(row for row in table["rows"] if row["method"] == "padim")
    assert padim["metrics"]["image_auroc"][AVERAGE]["categories"] == [2, 2]
    assert padim["metrics"]["image_auroc"]["bottle"]["published"] == 0.994
    states = {cell["path"]: cell["state"] for cell in table["cells"]}
    assert states["patchcore/screw/cpu-seed0"] == "failed"


def test_page(workdir, grid):
    page = write_grid_page(workdir / "table.html", grid, compare=True).read_text()
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)  # nothing from outside
    for link in re.findall(r'href="([^"]+/report.html)"', page):
        assert (workdir / link).is_file()
    assert page.count("<tbody data-title") == 5
    assert "WRN50-2" in page and "task numbers sorted as text" in page
    assert "9 of 11 cells finished · 1 failed · 1 not finished" in page
    assert "+0.05" in page and "against the raw-colour baseline" in page


def test_colours_are_by_the_difference():
    assert colour(None, "published") is None and colour(0.1, None) is None
    better, worse = colour(0.05, "published"), colour(-0.05, "published")
    assert better == "rgba(0, 114, 178, 0.700)" and worse == "rgba(213, 94, 0, 0.700)"
    assert colour(0.5, "published") == better and colour(0.025, "published") != better


def test_planned_cells_belong_to_the_table(workdir):
    planned = [("padim/tile/cpu-seed0", record_of("padim", "tile"))]
    grid = load_grid(workdir, planned)
    assert grid.categories == ("bottle", "screw", "tile")
    assert ".825 ± .035 (2 of 3)" in markdown(grid)
    assert "PaDiM on tile, seed 0" in markdown(grid)


def test_settings_that_differ_are_rows_of_their_own(tmp_path):
    write_cell(tmp_path, "padim", "bottle", 0, [0.9] * 5)
    write_cell(tmp_path, "padim", "screw", 0, [0.9] * 5, overrides={"sigma": "1"},
               config={"backbone": "resnet18", "crop_size": 0, "sigma": 1.0})  # fmt: skip
    write_cell(tmp_path, "padim", "tile", 0, [0.9] * 5, weights={"source": "random"})
    rows = load_grid(tmp_path).rows
    assert [row.settings for row in rows] == ["cpu", "cpu, **random weights**", "cpu, sigma=1"]


def test_notes_name_their_methods(tmp_path):
    write_cell(tmp_path, "padim", "bottle", 0, [0.9] * 5, notes=["both", "one"])
    write_cell(tmp_path, "csflow", "bottle", 0, [0.9] * 5, notes=["both"])
    assert load_grid(tmp_path).notes == {"both": "all methods", "one": "PaDiM"}


def test_an_empty_directory_is_an_empty_table(tmp_path):
    grid = load_grid(tmp_path / "nothing")
    assert grid.rows == () and "0 of 0 cells" in markdown(grid)


def test_damage_and_mixtures_are_named(tmp_path):
    top = write_cell(tmp_path, "padim", "bottle", 0, [0.9] * 5)
    (top / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json: cannot be read"):
        load_grid(tmp_path)
    (top / "metrics.json").write_text("{}")
    write_cell(tmp_path, "padim", "tile", 0, [0.9] * 5, dataset="mtd")
    with pytest.raises(UserError, match="mtd .*, mvtec_ad"):
        load_grid(tmp_path)
