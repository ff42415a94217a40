"""Disks that are full or read-only: one line, and what was there before is as it was."""

import errno
import logging
import os

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from imvad_jax import errors
from imvad_jax.data import decoded_cache
from imvad_jax.files import NotWritten, create_atomically, kept_if_possible, write_atomically
from imvad_jax.programs import devices, program
from imvad_jax.runs.record import write_npz
from imvad_jax.training import checkpoint


class Full:
    """A file of a disk that takes so many bytes more."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def write(self, data):
        taken = memoryview(data).cast("B")[: self._room]
        self._file.write(taken)
        self._room -= len(taken)
        if len(taken) < memoryview(data).nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(taken)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.fixture
def full(monkeypatch):
    """Every file that is written to atomically lies on a disk with room for so many bytes."""

    def fill(room):
        real = write_atomically
        limited = lambda path, write: real(path, lambda file: write(Full(file, room)))  # noqa: E731
        for name in ("owned", "data.decoded_cache"):
            monkeypatch.setattr(f"imvad_jax.{name}.write_atomically", limited)

    return fill


@pytest.fixture(autouse=True)
def nothing_was_said(monkeypatch):
    monkeypatch.setattr(errors, "_warned", set())


def refuse(*args, **kwargs):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(args[0]))


def test_a_full_disk_is_one_line_with_the_file_and_the_bytes(tmp_path, full):
    write_npz(tmp_path / "predictions.npz", {name: np.zeros(9) for name in
                                             ("path", "label", "image_score")})  # fmt: skip
    before = (tmp_path / "predictions.npz").read_bytes()
    full(600)
    with pytest.raises(NotWritten) as caught:
        write_npz(tmp_path / "predictions.npz", {name: np.ones(999) for name in
                                                 ("path", "label", "image_score")})  # fmt: skip
    text = caught.value.text
    assert text.startswith(f"{tmp_path / 'predictions.npz'}: cannot be written (No space left on")
    assert " after 600 bytes; " in text and text.endswith("before is as it was")
    assert "\n" not in text
    assert (tmp_path / "predictions.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]


def test_the_real_full_device_is_named(tmp_path):
    def write(file):
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    with pytest.raises(NotWritten, match=r"a\.bin: cannot be written \(No space left on device"):
        write_atomically(tmp_path / "a.bin", write)
    with pytest.raises(NotWritten, match="after 1 bytes"):
        create_atomically(tmp_path / "a.bin", lambda path: (path.write_bytes(b"1"), write(None)))
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_file_that_is_read_stays_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "a", lambda file: os.stat("/not/there"))


def test_a_read_only_place_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NotWritten, match=r"a: cannot be written \(Read-only file system\)$"):
        write_atomically(tmp_path / "a", lambda file: None)


def test_a_cache_that_cannot_be_written_is_one_warning(tmp_path, full, capsys):
    full(10)
    arrays = {"train_images": np.zeros((4, 8, 8, 3), np.uint8)}
    for name in ("a.npz", "b.npz"):
        cache = tmp_path / name
        assert not kept_if_possible(lambda: decoded_cache.write(cache, {}, arrays))  # noqa: B023
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"warning: {tmp_path / 'a.npz'}: cannot be written")
    assert "going on without keeping it" in said and not list(tmp_path.iterdir())


def test_compiled_programs_are_read_where_they_cannot_be_kept(tmp_path, monkeypatch, capsys):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setattr(devices.tempfile, "TemporaryFile", lambda dir: refuse(dir))
    try:
        devices._keep_programs(tmp_path / "there")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "there")
        assert jax.config.jax_persistent_cache_min_compile_time_secs == float("inf")
        jax.config.update(names[0], None)
        (tmp_path / "file").write_text("mine")
        devices._keep_programs(tmp_path / "file" / "compiled")
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    (line,) = capsys.readouterr().err.splitlines()
    assert "there: cannot be written (Read-only file system); going on without" in line


def test_a_checkpoint_on_a_full_disk_is_named(tmp_path, monkeypatch):
    def save(self, *args, **options):
        raise ValueError("INTERNAL: writing failed: No space left on device [source locations=]")

    monkeypatch.setattr(ocp.StandardCheckpointer, "save", save)
    with pytest.raises(NotWritten, match=r"checkpoint: cannot be written \(No space left on dev"):
        checkpoint.save_variables(tmp_path, {"a": np.zeros(3)})


def test_the_log_of_orbax_tells_no_full_disk_again(tmp_path, caplog):
    checkpoint.save_variables(tmp_path, {"a": np.zeros(3)})  # from then on
    for text in ("Error writing: No space left on device", "another one"):
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("absl").exception("in the background")
    assert [record.exc_info[1].args[0] for record in caplog.records] == ["another one"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.ENAMETOOLONG])
def test_what_the_system_refuses_elsewhere_is_one_line(code, capsys):
    def main():
        raise OSError(code, os.strerror(code), "some/file")

    with pytest.raises(SystemExit) as stop:
        program.guard(main)
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: some/file: {os.strerror(code)}\n"


def test_a_mistake_of_the_program_is_no_line(capsys):
    def main():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "some/file")

    with pytest.raises(FileNotFoundError):
        program.guard(main)
