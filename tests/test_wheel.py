"""The wheel: what it holds, and what of a foreign repository a package in it takes for its own."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from imvad_jax.runs import record

ROOT = Path(__file__).resolve().parents[1]
BUILD = """
import sys
from setuptools import build_meta
print(build_meta.build_wheel(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The files of the wheel by name, built from a copy: building leaves folders behind."""
    pytest.importorskip("setuptools")
    top = tmp_path_factory.mktemp("wheel")
    kept = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("imvad_jax", "experiments"):
        shutil.copytree(ROOT / name, top / name, ignore=kept)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, top)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(top)], cwd=top, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(top / done.stdout.split()[-1]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_the_package_alone(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"imvad_jax"}
    (points,) = (text for name, text in wheel.items() if name.endswith("entry_points.txt"))
    assert b"imvad = imvad_jax.programs.cli:main" in points
    assert points.count(b"=") == 1


def test_it_holds_every_file_of_the_package(wheel):
    """Those are code, and what code reads: templates, published figures, examples of exports."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "imvad_jax"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("no checkout")
    there = {name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()}
    assert "imvad_jax/export/examples/score_stablehlo.py" in there
    # Notes on where files are from are for the repository.
    assert {name for name in there - wheel.keys() if not name.endswith(".md")} == set()


def git(folder, *arguments):
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def repository(folder: Path, name: str) -> Path:
    """A repository with a package at its top and a setup.cfg that names it, all committed."""
    (folder / "imvad_jax/runs").mkdir(parents=True)
    (folder / "imvad_jax/runs/record.py").write_text("x = 1\n")
    (folder / "setup.cfg").write_text(f"[metadata]\nname = {name}\n")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "one")
    return folder


def test_the_commit_is_that_of_our_own_checkout(tmp_path, monkeypatch):
    ours = repository(tmp_path / "ours", "imvad_jax")
    commit = record.git_commit(ours)
    assert len(commit) == 10 and int(commit, 16) >= 0
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook
    assert record.git_commit(ours) == commit
    (ours / "imvad_jax/runs/record.py").write_text("x = 2\n")
    monkeypatch.delenv("GIT_DIR")
    assert record.git_commit(ours) == f"{commit}-dirty"


def test_the_commit_of_a_foreign_repository_is_not_ours(tmp_path):
    theirs = repository(tmp_path / "theirs", "their_package")
    assert record.git_commit(theirs) is None  # a copy of the package in it
    site = theirs / ".venv/lib/site-packages"
    site.mkdir(parents=True)
    assert record.git_commit(site) is None  # installed from a wheel
    (site / "setup.cfg").write_text("[metadata]\nname = imvad_jax\n")
    assert record.git_commit(site) is None  # files that nobody tracks
    below = repository(tmp_path / "above", "above") / "third_party"
    shutil.copytree(theirs / "imvad_jax", below / "imvad_jax")
    (below / "setup.cfg").write_text("[metadata]\nname = imvad_jax\n")
    git(below, "add", ".")
    git(below, "commit", "-m", "vendored")
    assert record.git_commit(below) is None  # the commit is that of the repository around it
    assert record.git_commit(tmp_path) is None  # no repository
