"""Every program under every fault of the world around it: one line, a status, nothing harmed.

A full disk is a file system of a few kilobytes, a read-only place one that is mounted so, both of
which only root can make; otherwise these faults are skipped.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from imvad_jax.locks import LOCK
from tests.data.trees import mvtec_tree

pytestmark = pytest.mark.long
SECONDS = 120  # of one program
MINE = "this is mine" * 200
CRASH = re.compile("Traceback|Segmentation|Fatal|core dumped")
# Programs without what they say of their work: complaints are counted.
QUIET = """
import sys
from imvad_jax import errors
errors.say = lambda text="": None
from imvad_jax.programs import entry
entry.start(sys.argv.pop(1))
"""
# Lines that a run writes in any case: bars, and that the weights are random.
ASIDE = re.compile(r"\d+/\d+ |RANDOM")
LARGEST = 4  # lines that may be said beside the last
PROGRAMS = {
    "run": ["--method=raw_color", "--preset=smoke", "--data_dir={data}", "--category=bottle",
            "--workdir={out}/run", "--weights=random", "--cache_dir={cache}"],
    "table": ["--methods=raw_color", "--preset=smoke", "--data_dir={data}",
              "--categories=bottle", "--workdir={out}/table", "--weights=random",
              "--cache_dir={cache}"],
    "predict": ["--workdir={top}/fit", "--input={data}/bottle/test", "--output={out}/found",
                "--cache_dir={cache}"],
    "export": ["--workdir={top}/fit", "--output={out}/detector", "--overwrite",
               "--cache_dir={cache}"],
    "benchmark": ["--method=raw_color", "--preset=smoke", "--weights=random", "--num_images=4",
                  "--repeats=1", "--seconds=0", "--fit_repeats=0", "--workdir={out}/measured",
                  "--cache_dir={cache}"],
    "benchmark --scaling": ["--method=raw_color", "--preset=smoke", "--weights=random",
                            "--scaling_images=2,4", "--scaling_bank=", "--scaling_devices=",
                            "--repeats=1", "--workdir={out}/scaling", "--cache_dir={cache}"],
    "contact_sheet": ["--augmentation=cutpaste", "--data_dir={data}", "--category=bottle",
                      "--count=2", "--size=64", "--out={out}/sheet.png"],
    "make_demo_data": ["--out={out}/parts", "--size=64", "--categories=hexnut"],
    "results": ["--results_dir=results", "--out={out}/results.md"],
    "document": ["--out={out}/flags.md"],
}  # fmt: skip
WITH_CACHE = [name for name, given in PROGRAMS.items() if "--cache_dir={cache}" in given]


class Place(NamedTuple):
    """Where a program works."""

    top: Path  # with a fitted detector
    data: Path
    out: Path
    cache: Path


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    lines: list[str]  # of its errors, bars left out
    seconds: float


def command(name, place):
    """The command line of a program."""
    given = (text.format(**place._asdict()) for text in PROGRAMS[name])
    return [sys.executable, "-c", QUIET, *name.split(), *given]


def begin(name, place, **options):
    """A process of its own group."""
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.Popen(
        command(name, place), env=environment, stderr=subprocess.PIPE, start_new_session=True,
        **{"stdout": subprocess.DEVNULL, **options},
    )  # fmt: skip


def end(process, start):
    """Waits for it. No program ends in a crash."""
    errors = process.communicate(timeout=SECONDS)[1].decode(errors="replace")
    assert not CRASH.search(errors), errors
    lines = [line for line in errors.splitlines() if line.strip() and not ASIDE.search(line)]
    return Ended(process.returncode, lines, time.monotonic() - start)


def call(name, place, **options):
    """A program from its start to its end."""
    start = time.monotonic()
    return end(begin(name, place, **options), start)


def refused(ended, named):
    """Whether it ended as programs do that are refused something: by one line that names it."""
    assert ended.status == 2, ended.lines
    assert str(named) in ended.lines[-1] and len(ended.lines) <= 1 + LARGEST, ended.lines
    return True


@pytest.fixture(scope="module", autouse=True)
def interrupts_are_heard():
    """A shell starts what runs behind it with Ctrl-C ignored, and so would be what that starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """Data, a fitted detector and what the programs compile."""
    top = tmp_path_factory.mktemp("world")
    mvtec_tree(top / "data", train=8)
    given = [
        "--method=raw_color", "--preset=smoke", f"--data_dir={top / 'data'}", "--category=bottle",
        "--holdout=0.25", f"--workdir={top / 'fit'}", "--weights=random",
        f"--cache_dir={top / 'cache'}",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "experiments.run", *given], check=True)
    return top


@pytest.fixture
def place(top, tmp_path):
    """A new folder to work in."""
    (tmp_path / "out").mkdir()
    return Place(top, top / "data", tmp_path / "out", top / "cache")


@pytest.fixture(scope="module")
def normal(top, tmp_path_factory):
    """Seconds of each program with nothing in its way, its compiled programs being there."""
    place = Place(top, top / "data", tmp_path_factory.mktemp("normal"), top / "cache")
    found = {name: call(name, place) for name in PROGRAMS}
    assert all(ended.status == 0 for ended in found.values()), found
    return {name: ended.seconds for name, ended in found.items()}


@contextlib.contextmanager
def mounted(path, options):
    """A file system of its own; a file of the user's is there, if it can be written to."""
    path.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a file system")
    try:
        if "ro" not in options.split(","):
            (path / "thesis.txt").write_text(MINE)
        yield path
        if "ro" not in options.split(","):
            assert (path / "thesis.txt").read_text() == MINE
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("name", PROGRAMS)
def test_full_disk(name, place, tmp_path):
    with mounted(tmp_path / "small", "size=16k") as small:
        assert refused(call(name, place._replace(out=small)), small)
        left = [path for path in small.rglob("*.tmp") if path.is_file()]
        assert not left


@pytest.mark.parametrize("name", PROGRAMS)
def test_read_only(name, place, tmp_path):
    with mounted(tmp_path / "fixed", "ro") as fixed:
        assert refused(call(name, place._replace(out=fixed)), fixed)


@pytest.mark.parametrize("options", ["ro", "size=8k"])
@pytest.mark.parametrize("name", WITH_CACHE)
def test_cache_that_cannot_be_written(name, options, place, tmp_path):
    with mounted(tmp_path / "cache", options) as cache:
        ended = call(name, place._replace(cache=cache / "kept"))
    assert ended.status == 0 and len(ended.lines) <= 1, ended


@pytest.mark.parametrize("name", PROGRAMS)
def test_two_at_once(name, place):
    start = time.monotonic()
    both = [end(process, start) for process in [begin(name, place) for _ in range(2)]]
    later = {0, 75} if name == "table" else {0, 2}  # whose cell is not finished, being held
    assert 0 in {ended.status for ended in both} <= later
    for ended in both:
        assert ended.status != 2 or refused(ended, place.out)
    assert not list(place.out.rglob(LOCK))


@pytest.mark.parametrize("share", [0.3, 0.8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("name", PROGRAMS)
def test_told_to_end(name, number, share, place, normal):
    start = time.monotonic()
    process = begin(name, place)
    time.sleep(max(share * normal[name], 0.5))
    late = process.poll() is not None
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    ended = end(process, start)
    if not late:
        # 0: all was finished already, or in time (which SIGTERM does not mind).
        expected = {signal.SIGINT: {130}, signal.SIGTERM: {143, 0}, signal.SIGKILL: {-9}}[number]
        assert ended.status in (expected | {0} if share > 0.5 else expected), ended
        assert number == signal.SIGKILL or len(ended.lines) <= 1 + LARGEST, ended
    again = call(name, place)
    assert again.status == 0, again


@pytest.mark.parametrize("name", PROGRAMS)
def test_nobody_reads(name, place):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = call(name, place, stdout=writing)
    finally:
        os.close(writing)
    assert ended.status in (141, 0) and not ended.lines, ended


@pytest.mark.parametrize("name", PROGRAMS)
def test_ascii(name, place):
    data = place.out / "data"
    shutil.copytree(place.data, data)
    for number, path in enumerate(sorted(data.rglob("test/good/*.png"))[:3]):
        path.rename(path.with_name(["caf\u00e9.png", "\x1b[31mred.png", "=1+1.png"][number]))
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = call(name, place._replace(data=data), environment=ascii_only)
    assert ended.status == 0, ended
