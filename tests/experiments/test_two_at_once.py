"""Two programs in one directory: the second is refused by name, and marks nothing as failed."""

import errno
import os
from pathlib import Path

import pytest

from imvad_jax import errors, files, locks
from imvad_jax.reporting.grid import ERROR
from imvad_jax.runs import cell, make_task, predictor, tasks
from imvad_jax.runs.specs import Work
from imvad_jax.training import hosts
from imvad_jax.training.limit import Stopped
from tests.experiments.test_tasks import task


@pytest.fixture
def work():
    return Work(parallel=None, log=lambda text: None)


def test_a_cell_is_held_while_it_is_made(tmp_path, work, monkeypatch):
    one = task(tmp_path).cell
    seen = []
    look = lambda *args: seen.append(os.listdir(one.run_dir)) or 1 / 0  # noqa: E731
    monkeypatch.setattr(cell, "resolve", look)
    with pytest.raises(ZeroDivisionError):
        cell.run_cell(one, work)
    assert seen == [[files.LOCK]] and not one.run_dir.exists()


def test_a_cell_that_another_process_makes_is_not_marked_as_failed(tmp_path, work):
    one = task(tmp_path)
    with locks.hold(one.run_dir):
        with pytest.raises(locks.Held, match=f"process {os.getpid()} on .*wait until it has ended"):
            cell.run_cell(one.cell, work)
        with pytest.raises(Stopped, match=f"process {os.getpid()} on"):
            make_task.make_task(one, work)
        assert os.listdir(one.run_dir) == [files.LOCK]


@pytest.mark.parametrize("first", [True, False])
def test_all_hosts_learn_of_a_refusal_and_the_first_alone_holds(tmp_path, work, monkeypatch, first):
    monkeypatch.setattr(hosts, "is_first", lambda: first)
    with locks.hold(tmp_path):
        monkeypatch.setattr(hosts, "any_of", lambda flag: True)
        with pytest.raises(locks.Held), cell._alone(tmp_path, work):
            pytest.fail("two at once")
    monkeypatch.setattr(hosts, "any_of", lambda flag: flag)
    with cell._alone(tmp_path / "run", work):
        assert (tmp_path / "run" / files.LOCK).exists() == first


def test_output_that_nobody_reads_is_no_failure_of_a_cell(tmp_path, work, monkeypatch):
    def closed(*args):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(make_task, "run_cell", closed)
    with pytest.raises(BrokenPipeError):
        make_task.make_task(task(tmp_path), work)
    assert not (task(tmp_path).run_dir / ERROR).exists()


def test_a_failure_that_a_full_disk_does_not_take_is_said(tmp_path, monkeypatch, capsys):
    def full(path, *args):
        raise files.not_written(path, OSError(errno.ENOSPC, "No space left on device"), 7)

    monkeypatch.setattr(tasks, "write_json", full)
    monkeypatch.setattr(errors, "_warned", set())
    tasks.mark_failed(task(tmp_path), "it diverged")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: padim/bottle seed 0 failed (it diverged), and ")
    assert "error.json: cannot be written (No space left on device after 7 bytes; " in line


def test_a_prediction_is_refused_where_another_one_writes(tmp_path):
    with locks.hold(tmp_path / "out", "--output"):
        with pytest.raises(locks.Held, match=r"^output=.*out: process"):
            predictor.predict(None, [], Path(tmp_path / "out"), predictor.Options())
        assert os.listdir(tmp_path / "out") == [files.LOCK]
