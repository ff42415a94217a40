"""Imports point down: the floors of docs/architecture.md are those of the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def floors() -> dict[str, int]:
    """Package or module by name, and its floor, counted from the bottom."""
    text = (ROOT / "docs/architecture.md").read_text()
    lines = re.search(r"```\n(experiments\n.*?)```", text, re.S)[1].split("\n")
    lines = [line.split() for line in reversed(lines) if line]
    return {name: number for number, names in enumerate(lines) for name in names}


FLOORS = floors()


def imported(path: Path) -> set[str]:
    """The names below imvad_jax (or `experiments`) that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "experiments":
                found.add(first)
            elif first == "imvad_jax" and rest:
                found.add(rest.split(".")[0])
    return found - {"__version__"}


def test_every_package_has_a_floor():
    there = {p.stem for p in (ROOT / "imvad_jax").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert there - {"__init__", "__main__", "__pycache__"} == FLOORS.keys() - {"experiments"}


@pytest.mark.parametrize("name", [name for name in FLOORS if name != "experiments"])
def test_imports_point_down(name):
    top = ROOT / "imvad_jax" / name
    files = sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]
    assert files
    wrong = {
        f"{path.relative_to(ROOT)} imports {other}"
        for path in files
        for other in imported(path) - {name}
        if FLOORS.get(other, len(FLOORS)) >= FLOORS[name]
    }
    assert not wrong


def test_no_flag_below_the_programs():
    for path in sorted((ROOT / "imvad_jax").rglob("*.py")):
        if path.relative_to(ROOT).parts[1] != "programs":
            assert "from absl import flags" not in path.read_text(), path


def test_programs_are_flags_and_one_call():
    for path in sorted((ROOT / "imvad_jax/programs").glob("*.py")):
        assert len(path.read_text().splitlines()) <= 150, path
    for path in sorted((ROOT / "experiments").glob("*.py")):
        assert len(path.read_text().splitlines()) <= 10, path
