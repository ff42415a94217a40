"""One process at a time writes to a directory, and one that died does not stand in the way."""

import json
import os
import signal
import subprocess
import sys

import pytest

from imvad_jax import locks
from imvad_jax.files import LOCK, host, is_temporary
from imvad_jax.locks import Held, hold
from imvad_jax.owned import RUN, check_directory

HOLDER = """
import sys
from imvad_jax.locks import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path / "run"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_directory_is_held_and_let_go_of(tmp_path):
    with hold(tmp_path / "new" / "run", log=pytest.fail):
        names = os.listdir(tmp_path / "new" / "run")
        assert names == [LOCK] and is_temporary(LOCK)
        stored = json.loads((tmp_path / "new" / "run" / LOCK).read_text())
        assert (stored["host"], stored["pid"]) == (host(), os.getpid()) and stored["start"]
        check_directory(tmp_path / "new" / "run", RUN)  # no file of somebody else's
    assert not (tmp_path / "new" / "run").exists()  # nothing was written to it
    with pytest.raises(KeyboardInterrupt), hold(tmp_path / "run", log=pytest.fail):
        (tmp_path / "run" / "mine").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "run") == ["mine"]


def test_a_second_process_is_refused_by_name_until_the_first_has_ended(tmp_path, holder):
    with pytest.raises(Held) as caught, hold(tmp_path / "run", log=pytest.fail):
        pytest.fail("two at once")
    assert caught.value.text.startswith(
        f"--workdir={tmp_path / 'run'}: process {holder.pid} on {host()}, which began on 2"
    )
    assert "writes there; wait until it has ended" in caught.value.text
    (tmp_path / "run" / "mine").touch()
    holder.communicate("")
    with hold(tmp_path / "run", log=pytest.fail):
        pass


@pytest.mark.parametrize("flock", [True, False])
def test_a_killed_holder_is_told_and_replaced(tmp_path, holder, monkeypatch, flock):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "run" / LOCK).is_file()
    if not flock:
        monkeypatch.setattr(locks, "fcntl", None)
    said = []
    with hold(tmp_path / "run", log=said.append):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    (line,) = said
    assert f"process {holder.pid} on {host()}, which began on 2" in line
    assert "ended without letting go of it; going on" in line
    assert os.listdir(tmp_path / "run") == []


def test_without_the_systems_locks_the_process_is_looked_for(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(Held, match=f"process {holder.pid} on"), hold(tmp_path / "run"):
        pytest.fail("two at once")


def left(tmp_path, **other):
    about = {"host": host(), "pid": os.getpid(), "since": "2020-01-01 00:00:00",
             "start": locks.process_start(os.getpid()), "boot": locks._boot()}  # fmt: skip
    (tmp_path / LOCK).write_text(json.dumps(about | other))


@pytest.mark.parametrize("other", [{"start": 1}, {"boot": "before"}, {"pid": "?"}],
                         ids=["recycled", "restarted", "damaged"])  # fmt: skip
def test_a_process_of_the_same_number_is_not_taken_for_the_holder(tmp_path, other):
    left(tmp_path, **other)
    said = []
    with hold(tmp_path, log=said.append):
        assert len(said) == 1


def test_of_another_host_the_file_to_delete_is_named(tmp_path):
    left(tmp_path, host="elsewhere", boot="another")
    with pytest.raises(Held) as caught, hold(tmp_path, "--output", log=pytest.fail):
        pytest.fail("two at once")
    assert "on elsewhere, which began on 2020-01-01 00:00:00, writes there" in caught.value.text
    assert caught.value.text.endswith(f"delete {tmp_path / LOCK}")
    (tmp_path / LOCK).write_text("")  # begun, and killed before it was written
    with hold(tmp_path, log=pytest.fail):
        pass


def test_a_lock_that_somebody_deleted_and_took_anew_stays(tmp_path):
    with hold(tmp_path, log=pytest.fail):
        (tmp_path / LOCK).unlink()
        left(tmp_path, host="elsewhere")
    assert "elsewhere" in (tmp_path / LOCK).read_text()
