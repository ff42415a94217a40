"""Programs ask for huge pages where the system gives them on request."""

import os
import subprocess
import sys

import pytest

from imvad_jax.programs import huge_pages


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What the process would be started anew with; the system gives huge pages on request."""
    found = []
    setting = tmp_path / "enabled"
    setting.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "SETTING", setting)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os, "execve", lambda *arguments: found.append(arguments))
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    return found


def test_a_program_starts_anew_with_huge_pages(started, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "experiments.run", "--method=stpm"])
    huge_pages.use()
    ((path, arguments, environment),) = started
    assert path == arguments[0] == sys.executable
    assert arguments[1:] == ["-m", "experiments.run", "--method=stpm"]
    assert environment[huge_pages.VARIABLE] == "glibc.malloc.hugetlb=1"


def test_other_tunables_are_kept(started, monkeypatch):
    monkeypatch.setenv(huge_pages.VARIABLE, "glibc.malloc.arena_max=2")
    huge_pages.use()
    assert started[0][2][huge_pages.VARIABLE] == "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"


@pytest.mark.parametrize("value", ["0", "1", "2"])
def test_what_the_environment_says_stands(started, monkeypatch, value):
    monkeypatch.setenv(huge_pages.VARIABLE, f"glibc.malloc.hugetlb={value}")
    huge_pages.use()
    assert not started


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_where_asking_changes_nothing_nothing_is_done(started, setting):
    if setting is None:
        huge_pages.SETTING.unlink()
    else:
        huge_pages.SETTING.write_text(setting)
    huge_pages.use()
    assert not started


@pytest.mark.parametrize("version", ["glibc 2.34", "musl 1.2", ""])
def test_another_c_library_is_left_alone(started, monkeypatch, version):
    monkeypatch.setattr(os, "confstr", lambda name: version)
    huge_pages.use()
    assert not started


def test_a_program_keeps_its_arguments_and_its_status():
    command = [sys.executable, "-m", "experiments.results", "--no_such_flag"]
    environment = {k: v for k, v in os.environ.items() if k != huge_pages.VARIABLE}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "no_such_flag" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
