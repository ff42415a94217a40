"""Ctrl-C and SIGTERM as a user meets them: one line, 130 or 143, nothing left behind, no crash."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.data.trees import mvtec_tree

SECONDS = 100  # that a test waits at most for what it sends a signal at


STARTED = []


@pytest.fixture(autouse=True)
def interrupts_are_heard():
    """What ignores a signal, as the background jobs of a shell do Ctrl-C and those of nohup SIGHUP,
    passes that on to what it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)
    signal.signal(signal.SIGHUP, hangup)


@pytest.fixture(autouse=True)
def nobody_is_left():
    """Whatever a test finds, its processes end with it."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start(arguments, tmp_path, **environment):
    """A process whose errors go to a file, `tmp_path / "errors"`."""
    with open(tmp_path / "errors", "wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=errors,
            env={**os.environ, "PYTHONPATH": os.getcwd(), **environment}, start_new_session=True,
            text=True,
        )  # fmt: skip
    STARTED.append(process)
    return process


def until(process, happened):
    """Waits for what `happened()` says."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)


def is_gone(group, seconds=10):
    """Whether nobody of a group of processes is left, soon."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def ended(process, tmp_path, status):
    """The last line of a process that has ended in order."""
    process.wait(SECONDS)
    errors = (tmp_path / "errors").read_text()
    assert process.returncode == status, errors
    assert not re.search("Traceback|Segmentation|Fatal|KeyboardInterrupt", errors), errors
    assert is_gone(process.pid)
    return errors.splitlines()[-1]


def run(tmp_path, *arguments, **environment):
    """A training that takes longer than any test waits."""
    mvtec_tree(tmp_path / "data", train=8)
    given = ["-m", "experiments.run", "--method=stpm", "--preset=smoke", "--weights=random",
             f"--data_dir={tmp_path / 'data'}", "--epochs=100000", "--checkpoint_every=1000",
             "--num_devices=2", f"--workdir={tmp_path / 'run'}", *arguments]  # fmt: skip
    return start(given, tmp_path, **environment)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_the_work_begins_it_leaves_at_once(tmp_path, number):
    process = start(["-X", "importtime", "-m", "experiments.run", "--list"], tmp_path)
    # Once absl is there, the signals are taken, and the imports go on for seconds.
    until(process, lambda: "absl.flags" in (tmp_path / "errors").read_text())
    process.send_signal(number)
    line = ended(process, tmp_path, 128 + number)
    assert "the same command begins anew" in (tmp_path / "errors").read_text(), line


def test_interrupted_while_it_compiles(tmp_path):
    given = {"JAX_LOG_COMPILES": "1", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    process = run(tmp_path, "--cache_dir=", **given)
    until(process, lambda: "Compiling jit(step)" in (tmp_path / "errors").read_text())
    os.killpg(process.pid, signal.SIGINT)
    line = ended(process, tmp_path, 130)
    assert line.startswith("stopped") and line.endswith("the same command goes on")


def test_told_to_end_in_the_middle_of_a_training(tmp_path):
    process = run(tmp_path, f"--cache_dir={tmp_path / 'cache'}")
    until(process, (tmp_path / "run/history.json").is_file)
    process.send_signal(signal.SIGTERM)
    line = ended(process, tmp_path, 143)
    assert re.fullmatch(r"stopped after epoch \d+ of 100000; the same command goes on", line)
    assert list((tmp_path / "run/training").glob("[1-9]*/_CHECKPOINT_METADATA"))


@pytest.mark.slow
def test_a_table_and_its_workers_say_one_line(tmp_path):
    mvtec_tree(tmp_path / "data", train=8)
    given = ["-m", "experiments.table", "--methods=stpm,raw_color", "--preset=smoke",
             "--weights=random", f"--data_dir={tmp_path / 'data'}", "--epochs=100000",
             "--num_devices=2", f"--workdir={tmp_path / 'table'}",
             f"--cache_dir={tmp_path / 'cache'}"]  # fmt: skip
    process = start(given, tmp_path)
    until(process, lambda: list(tmp_path.glob("table/stpm/bottle/*/history.json")))
    os.killpg(process.pid, signal.SIGINT)
    line = ended(process, tmp_path, 130)
    assert line == "2 cells are not finished; the same command goes on"
    assert (tmp_path / "errors").read_text().count("interrupted") == 1
    assert (tmp_path / "table/table.html").is_file()
    log = (tmp_path / "table/logs/worker0.log").read_text()
    assert "Traceback" not in log and "stopped after epoch" in log


BUSY = """
    import subprocess, sys, time
    from imvad_jax.programs import stopping
    stopping.listen()
    from imvad_jax import files, leaving
    from imvad_jax.training.limit import Limit
    limit = Limit()
    limit.grace, stopping.LAST = float(sys.argv[2]), 0
    stopping.watch(limit)

    def write(file):
        file.write(b"half")
        file.flush()
        print("busy", file=sys.stderr, flush=True)
        leaving.run([sys.executable, "-c", "import time; time.sleep(1000)"])

    files.write_atomically(sys.argv[1], write)
"""


def busy(tmp_path, grace):
    """A program in the middle of a step that does not end, of a file, and of a child."""
    out = tmp_path / "out" / "file"
    process = start(["-c", textwrap.dedent(BUSY), str(out), str(grace)], tmp_path)
    until(process, lambda: "busy" in (tmp_path / "errors").read_text())
    time.sleep(0.3)  # until the child is there
    assert len(list(out.parent.iterdir())) == 1
    return process, out.parent


def test_a_second_interrupt_leaves_at_once(tmp_path):
    process, out = busy(tmp_path, grace=1000)
    process.send_signal(signal.SIGINT)
    until(process, lambda: "Ctrl-C again leaves at once" in (tmp_path / "errors").read_text())
    process.send_signal(signal.SIGTERM)  # nothing new
    time.sleep(0.2)
    assert process.poll() is None
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    line = ended(process, tmp_path, 130)
    assert time.monotonic() - start < 5
    assert line.startswith("left at once") and line.endswith("the same command goes on")
    assert not list(out.iterdir())  # nothing half written


def test_a_step_that_takes_too_long_is_left(tmp_path):
    process, out = busy(tmp_path, grace=0.3)
    process.send_signal(signal.SIGHUP)
    line = ended(process, tmp_path, 143)
    assert line.startswith("left before its step ended")
    assert not list(out.iterdir())


def test_what_is_ignored_stays_ignored(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from imvad_jax.programs import stopping; stopping.listen()\n"
        "signal.raise_signal(signal.SIGHUP); print(signal.getsignal(signal.SIGHUP).name)"
    )
    process = start(["-c", code], tmp_path)
    assert process.communicate()[0] == "SIG_IGN\n" and process.returncode == 0


def test_python_users_keep_their_handlers(tmp_path):
    code = (
        "import signal; before = [signal.getsignal(n) for n in (2, 15)]; import imvad_jax.api\n"
        "assert before == [signal.getsignal(n) for n in (2, 15)]\n"
        "assert signal.set_wakeup_fd(-1) == -1"
    )
    process = start(["-c", code], tmp_path)
    assert process.wait() == 0, (tmp_path / "errors").read_text()
