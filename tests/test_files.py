"""Files and folders are there whole or not at all, and what was left of them is found again."""

import os
import subprocess
import sys
import time

import pytest

from imvad_jax import files
from imvad_jax.files import create_atomically, write_atomically


def folder(text, fail=False):
    """A `create` that makes a folder with one file."""

    def create(path):
        path.mkdir()
        (path / text).write_text(text)
        if fail:
            raise ValueError(text)

    return create


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_a_folder_replaces_a_folder_and_a_failure_leaves_the_old_one(tmp_path):
    target = tmp_path / "new" / "target"
    create_atomically(target, folder("first"))
    create_atomically(target, folder("second"))
    with pytest.raises(ValueError, match="third"):
        create_atomically(target, folder("third", fail=True))
    assert names(target) == ["second"]
    assert list(target.parent.iterdir()) == [target]


def test_a_file_replaces_a_file_and_a_failure_leaves_nothing(tmp_path):
    target = tmp_path / "target"
    for text in ("first", "second"):
        create_atomically(target, lambda path, text=text: path.write_text(text))
        assert target.read_text() == text
    with pytest.raises(ZeroDivisionError):
        create_atomically(tmp_path / "other", lambda path: path.write_text("x") / 0)
    assert list(tmp_path.iterdir()) == [target]


# Ends in the middle of a replacement, as SIGKILL does: no handler runs.
KILLED = """
import os, sys
from imvad_jax import files

def killed(*args, real=os.rename, left=[int(sys.argv[2])]):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    real(*args)

os.rename = killed

def create(path):
    path.mkdir()
    (path / "new").write_text("new")

files.create_atomically(sys.argv[1], create)
"""


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_process_killed_between_two_renames_loses_nothing(tmp_path, renames):
    target = tmp_path / "target"
    create_atomically(target, folder("old"))
    command = [sys.executable, "-c", KILLED, str(target), str(renames)]
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.getcwd()}).returncode
    assert status == (9 if renames < 2 else 0)
    assert target.exists() == (renames != 1)  # between the two there is none of that name ...
    files.recover(target)  # ... until it is looked for
    assert names(target) == (["new"] if renames == 2 else ["old"])
    files.sweep(tmp_path)
    assert names(tmp_path) == ["target"]


def test_a_second_rename_that_fails_brings_the_old_folder_back(tmp_path, monkeypatch):
    target, real, calls = tmp_path / "target", os.rename, []
    create_atomically(target, folder("old"))

    def rename(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(*args)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(files.NotWritten, match="No space left.*bytes are free there.; what was"):
        create_atomically(target, folder("new"))
    assert names(target) == ["old"] and names(tmp_path) == ["target"]


def test_a_replacement_that_was_only_not_cleared_away_stands(tmp_path):
    target = tmp_path / "target"
    create_atomically(target, folder("new"))
    folder("old")(files._aside(target))
    files.recover(target)
    assert names(target) == ["new"] and names(tmp_path) == ["target"]


def test_only_our_own_leftovers_are_swept(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True).stdout.strip()  # fmt: skip
    here = f".a.json.imvad_jax-{files.host()}"
    swept = [f"{here}-{gone}-0a1b2c.tmp", f"{here}-{os.getpid()}-0a1b2c.tmp"]
    left = [
        f"{here}-{os.getppid()}-0a1b2c.tmp",  # of a process that lives
        f".a.json.imvad_jax-another_host-{gone}-0a1b2c.tmp",  # not known here
        f".a.json.{gone}.tmp", f".metrics.json.{gone}.tmp", "a.tmp", ".a.tmp",
        f"a.imvad_jax-{files.host()}-{gone}-0a1b2c.tmp",
    ]  # fmt: skip
    old = [".a.json.imvad_jax-another_host-7-0a1b2c.tmp", ".config.json.7.tmp",
           ".mvtec_ad-screw-256-224-0123456789ab.npz.7.tmp"]  # fmt: skip
    kept = [".a.json.7.tmp", "old.tmp"]  # as old, but anybody's
    for name in (*swept, *left, *old, *kept):
        (tmp_path / name).write_text("x")
    (tmp_path / swept[0]).unlink()
    folder("inside")(tmp_path / swept[0])  # folders go as well
    for name in (*old, *kept):
        os.utime(tmp_path / name, (time.time() - 2 * files.OLD,) * 2)
    write_atomically(tmp_path / "new.json", lambda file: file.write(b"{}"))
    assert names(tmp_path) == sorted([*left, *kept, "new.json"])


def test_two_hosts_and_two_processes_take_different_names(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 250)
    one = files.temporary_path(long)
    assert files.is_temporary(one.name) and len(one.name) < 256
    files.host.cache_clear()
    monkeypatch.setattr(files.platform, "node", lambda: "another.host")
    two = files.temporary_path(long)
    files.host.cache_clear()
    assert "another_host" in two.name and one != two and files.is_temporary(two.name)
