"""The site of docs/: every page is reached, links lead somewhere, README stays short."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from imvad_jax import methods
from imvad_jax.benchmarks import headline
from imvad_jax.programs import document, method_pictures, methods_page
from imvad_jax.reporting import published

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 900


def test_readme_has_at_most_so_many_words():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


def test_the_python_of_the_readme_has_six_lines():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len([line for line in code.splitlines() if line.strip()]) == 6


def test_the_site_leads_to_every_page():
    named = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(named) == set()
    assert {name for name in named if not (ROOT / name).is_file()} <= pages


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_says_what_it_learns_and_when_to_use_it(name):
    page = methods_page.method_page(name, "")
    for heading in methods_page.SECTIONS.values():
        (text,) = re.findall(rf"^## {heading}\n\n(.+?)\n\n", page, re.M | re.S)
        assert len(text.split()) >= 10
    (link,) = re.findall(r"flags\.md#([\w-]+)", page)
    flags = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)", flags, re.M)
    assert link in map(methods_page.anchor, headings)


def test_pictures_of_the_pages_are_there_and_small():
    names = {path.stem for path in (ROOT / "docs/images/methods").glob("*.jpg")}
    assert names == set(method_pictures.PICTURES)
    for name in names:
        assert (ROOT / f"docs/images/methods/{name}.jpg").stat().st_size < 60_000
    assert (ROOT / "docs/images/page.jpg").stat().st_size < 300_000


def test_the_site_builds_and_its_links_lead_somewhere(tmp_path):
    build = pytest.importorskip("mkdocs.commands.build", reason="needs the extra docs")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    build.build(config)
    home = (tmp_path / "site/index.html").read_text(encoding="utf-8")
    assert 'href="RESULTS.html"' in home and (tmp_path / "site/methods/cfa.html").is_file()
    fetched = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', home)
    assert fetched == []  # nothing comes from other servers


def test_tables_in_pages_are_written_and_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(document, "TABLED", {"README.md": ""})
    (tmp_path / "benchmarks").mkdir()
    page = tmp_path / "README.md"
    page.write_text(f"before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n")
    assert document.fill_tables(tmp_path, check=True) == 1
    assert "its table does not fit" in capsys.readouterr().err and "old" in page.read_text()
    assert document.fill_tables(tmp_path, check=False) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert len(re.findall(r"^\| .*[.]\d{3}", text, re.M)) == len(methods.METHODS)
    assert document.fill_tables(tmp_path, check=True) == 0


def test_the_tables_of_the_repository_fit_the_stored_files():
    assert document.fill_tables(ROOT, check=True) == 0, f"run: {document.COMMAND}"


def _record(method, compare, **more):
    config = {"image_size": 256, "cache_features": False}
    return {"method": method, "preset": "cpu", "compare": compare, "config": config,
            "hardware": "CPU, 2 cores, 2 JAX devices"} | more  # fmt: skip


def _part(ours, theirs):
    return {"ours_s": {"median": ours}, "theirs_s": {"median": theirs}}


def test_a_step_is_compared_with_the_fastest_of_pytorchs_forms(monkeypatch):
    steps = {"training step": _part(1.0, 3.0), "training step, torch.compile": _part(1.0, 2.0)}
    records = [
        _record("stpm", {"torch_steps": {"parts": steps}}),
        _record("cfa", {"anomalib": {"parts": {"a step after the first epoch": _part(2.0, 1.0)}}},
                config={"image_size": 128}),
        _record("padim", {"torch": {"parts": {"fit": _part(2.0, 4.0)}}}),
        _record("patchcore", {"torch": {"parts": {"fit": _part(1.0, 4.0)}}}, preset="official"),
        _record("fastflow", {"torch_steps": {"error": "out of memory", "parts": {}}}),
    ]  # fmt: skip
    monkeypatch.setattr(headline, "_records", lambda directory: iter(records))
    rows = {line.split(" | ")[0]: line.split(" | ")[-2:]
            for line in headline.table("", "").splitlines()}  # fmt: skip
    assert rows["| STPM"] == ["1.0 (2.0x)", "- |"]
    assert rows["| CFA"] == ["-", "2.0 (0.5x, 128 px) |"]
    assert rows["| PaDiM"] == ["2.0 (2.0x)", "- |"]
    assert rows["| PatchCore*"] == ["1.0 (4.0x, `official`)", "- |"]
    assert rows["| FastFlow"] == ["-", "- |"]


def test_machines_are_those_of_the_seconds_shown(monkeypatch):
    hardware = ("old, 2 cores, 1 JAX devices", "A, 2 cores, 2 JAX devices", "4 x GPU")
    part = {"torch_steps": {"parts": {"training step": _part(1.0, 2.0)}}}
    of = zip(("stpm", "stpm", "rd4ad"), hardware, strict=True)
    records = [_record(method, part, hardware=name) for method, name in of]
    more = _record("cfa", part, hardware="B, 2 cores, 2 JAX devices")
    monkeypatch.setattr(headline, "_records", lambda directory: iter([*records, more]))
    assert "On A, B (2 cores); 4 x GPU. " in headline.table("", "")


def test_what_is_short_of_the_published_figure_says_why(monkeypatch):
    def reached(method):
        far = {"image_auroc": 0.5, "pixel_pro": None, "pixel_ap": None}
        near = far | {"image_auroc": published.benchmark("padim", "bottle", "image_auroc") - 0.01}
        rows = {"rd4ad": far, "draem": far, "padim": near}
        return [{"category": "bottle", "metrics": rows[method]}] if method in rows else []

    monkeypatch.setattr(headline, "preset_reached", reached)
    last = headline.table(ROOT / "benchmarks", "").splitlines()[-1]
    assert last.startswith(
        "Of 3 published figures 0 are reached, 1 within 0.01. Further below: DRAEM ("
    )
    assert "128/256 pixels" in last and "light" in last
    assert "; RD4AD (ResNet-18 for WRN50-2, 40/200 epochs)." in last
    assert "PaDiM" not in last


def test_what_has_the_published_settings_is_not_short():
    """A preset that differs in nothing has no excuse: say in headline.ALSO what it lacks."""
    same = {name for name in methods.METHODS if not headline._why(name)}
    assert "stpm" in same and "rd4ad" not in same
    found = {name: headline._distances(name, headline.preset_reached(name)) for name in same}
    assert found["stpm"]
    assert not any(map(headline._is_short, found.values()))


def test_links_out_of_docs_become_links_of_the_site_or_text(monkeypatch):
    files = pytest.importorskip("mkdocs.structure.files", reason="needs the extra docs")
    assert files
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import site_hooks

    there = {"RESULTS.md": False, "flags.md": False, "methods/cfa.md": False, "a.py": True}
    known = [
        SimpleNamespace(src_uri=name, inclusion=SimpleNamespace(is_excluded=lambda out=out: out))
        for name, out in there.items()
    ]

    def turned(name, text):
        page = SimpleNamespace(file=SimpleNamespace(src_uri=name))
        return site_hooks.on_page_markdown(text, page, None, known)

    assert turned("methods/cfa.md", "[a](../../RESULTS.md#x)") == "[a](../RESULTS.md#x)"
    assert turned("RESULTS.md", "[a](docs/flags.md)") == "[a](flags.md)"
    assert turned("flags.md", "see [the licence](../LICENSE).") == "see the licence."
    assert turned("flags.md", "[a](../nowhere.md)") == "[a](../nowhere.md)"
    code = "```\n[a](../LICENSE)\n```"
    assert turned("flags.md", code) == code
    sys.modules.pop("site_hooks")
