"""What the programs share: paths that begin with a tilde, and commands as a shell takes them."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imvad_jax import presets
from imvad_jax.commands import command
from imvad_jax.programs import flags_page, program

PATHS = {
    "anomalib_python", "benchmarks_dir", "cache_dir", "check_images", "checkpoint", "data_cache",
    "data_dir", "good", "input", "out", "output", "pack", "profile", "results_dir", "weights",
    "workdir",
}  # fmt: skip
SPEAKS_OF_A_PATH = re.compile(
    r"^(Directory|Folder|File|With --render: (page|directory))\b|^(Page|Picture) to write"
    r"|: a file|the python of"
)
PROGRAMS = (*flags_page.PROGRAMS, "document")


@pytest.fixture
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    return "/home/me"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/x", "/home/me/x"), ("~", "/home/me"), ("a/~/x", "a/~/x"), ("./~", "./~"), ("", ""),
        ("~nobody_of_this_name/x", "~nobody_of_this_name/x"),
    ],
)  # fmt: skip
def test_a_path_may_begin_with_a_tilde(home, given, expected):
    assert program._PathParser().parse(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~/w.pth", "/home/me/w.pth"),
        ("resnet18=~/w.pth,~/v.npz,hub", "resnet18=/home/me/w.pth,/home/me/v.npz,hub"),
        ("hub:timm/resnet18.tv_in1k@main", "hub:timm/resnet18.tv_in1k@main"),
        ("/a=b/~c.pth", "/a=b/~c.pth"),
    ],
)
def test_so_may_each_source_of_weights(home, given, expected):
    assert program._SourcesParser().parse(given) == expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_flag_that_takes_a_path_is_expanded(home, name):
    found = {flag.name: flag for flag in flags_page.program_flags(name)[1]}
    for flag in found.values():  # whoever adds one adds it here
        assert not SPEAKS_OF_A_PATH.search(flag.help) or flag.name in PATHS, flag.name
    given = [flag for flag in found.values() if flag.name in PATHS]
    assert given
    for flag in given:
        flag.parse("~/x")
        value = flag.value[-1] if isinstance(flag.value, list) else flag.value
        assert value == "/home/me/x", flag.name
        assert "~" not in flag.serialize(), flag.name


def test_fields_of_a_configuration_that_are_paths_are_expanded(home):
    config = presets.resolve("draem", "smoke", {"texture_dir": "~/textures"})
    assert config.picture_dirs == {"textures": "/home/me/textures"}


def test_help_tells_what_a_program_does_and_its_flags():
    command = [sys.executable, "-m", "experiments.make_demo_data", "--help"]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    assert "--out " in found and "--categories " in found
    source = Path(program.__file__).with_name("make_demo_data.py").read_text()
    assert found.startswith(ast.get_docstring(ast.parse(source)).splitlines()[0])


def test_commands_are_quoted_as_a_shell_takes_them(monkeypatch):
    arguments = ["--workdir=my runs/it's", "--input=parts/*.png", "--preset=cpu"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
    text = command("run")
    assert shlex.split(text) == ["imvad", "run", *arguments]
    assert "'--input=parts/*.png' --preset=cpu" in text
    assert shlex.split(command("predict", ["--workdir=a b"]))[-1] == "--workdir=a b"
