"""Programs whose output nobody reads, or whose terminal is old."""

import os
import subprocess
import sys

import pytest

from imvad_jax.programs import streams

SHORT = """
import os
from imvad_jax.programs import program
from imvad_jax.errors import UserError, warn_once
def main():
    for number in range(int(os.environ["COUNT"])):
        print("a line", flush=number % 2 == 0)
    print("caf\\u00e9 \\x1b[31mred")
    warn_once("kind", "first \\x1b[2J")
    warn_once("kind", "second")
    raise UserError("bad \\x1b]0;name\\x07")
program.run(main)
"""


def start(count=1, **options):
    env = os.environ | {"PYTHONPATH": os.getcwd(), "COUNT": str(count)} | options.pop("env", {})
    return subprocess.Popen([sys.executable, "-c", SHORT], env=env, **options)


def test_a_closed_pipe_ends_the_program_without_a_word():
    process = start(100_000, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"a line\n"
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == streams.CLOSED == 141
    process.stderr.close()


def test_a_help_that_nobody_reads_ends_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "experiments.make_demo_data", "--help"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (streams.CLOSED, b"")


def test_names_reach_no_terminal_as_orders_and_ascii_is_enough():
    options = {"env": {"PYTHONIOENCODING": "ascii"}, "stdout": subprocess.PIPE}
    process = start(stderr=subprocess.PIPE, **options)
    out, err = process.communicate()
    assert out == b"a line\ncaf\\xe9 \\x1b[31mred\n" and process.returncode == 2
    assert err == b"warning: first \\x1b[2J\nerror: bad \\x1b]0;name\\x07\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_output_to_a_full_disk_is_one_line():
    with open("/dev/full", "wb") as full:
        process = start(stdout=full, stderr=subprocess.PIPE)
        (line,) = process.communicate()[1].splitlines()
    assert process.returncode == 2 and line.endswith(b"No space left on device")


def test_closed_streams_swallow_what_they_are_given(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    streams.prepare()
    for stream in (sys.stdout, sys.stderr):
        print("nobody hears this", file=stream, flush=True)
        stream.close()
