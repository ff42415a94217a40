"""Killed at a change of a file, wherever it is, and started again: nothing differs in the end.

Of each program ten kills, spread over its changes of files; IMVAD_KILLS sets another number. The
files of the user that lie beside those of the program stay.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.data.trees import mvtec_tree
from tests.long.snapshot import snapshot, temporary

KILLS = int(os.environ.get("IMVAD_KILLS", "10"))
AT_ONCE = 2  # programs
NEVER = 10**9
LATER = 0.05  # seconds between kills after the same change
KILLER = Path(__file__).parent / "killer"
SECONDS = 300  # of one program
MINE = "this is mine"

COMMON = ["--weights=random", "--cache_dir=cache", "--num_devices=2"]
SAVE = """
from pathlib import Path
from imvad_jax import api
api.load("model")  # whatever happened before, one is there
api.load("../fit").save("model")
api.load("model")
"""
# The arguments of Python; and what is made beforehand, by name of the folder it is made in.
PROGRAMS = {
    "run": ["-m", "experiments.run", "--method=stpm", "--preset=smoke", "--epochs=6",
            "--checkpoint_every=2", "--data_dir=../data", "--category=bottle", "--holdout=0.25",
            "--workdir=out", *COMMON],
    "table": ["-m", "experiments.table", "--methods=raw_color,stpm", "--preset=smoke",
              "--epochs=3", "--checkpoint_every=1", "--data_dir=../data", "--categories=bottle",
              "--compare", "--workdir=out", *COMMON],
    "predict": ["-m", "experiments.predict", "--workdir=../fit", "--input=../data/bottle/test",
                "--output=out", "--cache_dir=cache", "--num_devices=2"],
    "export": ["-m", "experiments.export", "--workdir=../fit", "--output=out/detector",
               "--overwrite", "--cache_dir=cache", "--num_devices=2"],
    "save": ["-c", SAVE],
}  # fmt: skip
# A file of ours beside which a file of the user's may lie from then on.
PROOFS = {
    "run": "out/config.json", "table": "out/table.json", "predict": "out/results.json",
    "export": "out/detector", "save": "model/config.json",
}  # fmt: skip


def start(arguments, folder: Path, at: int, seconds: float = 0) -> tuple[int, int, str]:
    """Runs a program in a folder; returns its status, the changes of files, and what it said."""
    counter = folder.with_name(f"{folder.name}.changes")
    counter.unlink(missing_ok=True)
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(KILLER), os.getcwd()]),
        "KILL_BELOW": str(folder), "KILL_AT": str(at), "KILL_AFTER": str(seconds),
        "KILL_COUNTER": str(counter),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SECONDS,
    )  # fmt: skip
    return done.returncode, counter.stat().st_size if counter.exists() else 0, done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The data, a fitted detector, and a folder for what the programs compile."""
    top = tmp_path_factory.mktemp("kills")
    mvtec_tree(top / "data", train=8)
    (top / "compiled").mkdir()
    made = begin(top, "making")
    fit = ["-m", "experiments.run", "--method=padim", "--preset=smoke", "--holdout=0.25",
           "--data_dir=../data", "--category=bottle", "--workdir=../fit", *COMMON]  # fmt: skip
    status, _, said = start(fit, made, NEVER)
    assert status == 0, said
    return top


def begin(top: Path, name: str) -> Path:
    """A new folder to work in, with somebody's file; programs that others compiled are there."""
    folder = top / name
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / "compiled").symlink_to(top / "compiled")
    (folder / "thesis.txt").write_text(MINE)
    return folder


@pytest.fixture(scope="module")
def earlier(place):
    """What lies there before the program begins, which it replaces."""
    made = begin(place, "earlier")
    mvtec_tree(place / "data-before", "screw", train=8)
    given = {
        "predict": [a.replace("../data/bottle/test", "../data-before") for a in
                    PROGRAMS["predict"]],
        "export": [*PROGRAMS["export"], "--batch_size=2"],
        "save": ["-c", "from imvad_jax import api; m = api.load('../fit'); m.save('model')"],
    }  # fmt: skip
    for name, arguments in given.items():
        (made / "out").mkdir(exist_ok=True)
        status, _, said = start(arguments, made, NEVER)
        assert status == 0, said
        (made / name).mkdir()
        for left in ("out", "model"):
            if (made / left).exists():
                shutil.move(made / left, made / name / left)
    return made


def kill(name: str, at: int, seconds: float, top: Path, earlier: Path) -> dict[str, str]:
    """What a program leaves that was killed at a change of a file, or so many seconds later, and
    started again.
    """
    folder = begin(top, f"{name}-{at}-{seconds}")
    if (earlier / name).is_dir():
        shutil.copytree(earlier / name, folder, dirs_exist_ok=True)
    status, _, said = start(PROGRAMS[name], folder, at, seconds)
    if at < NEVER:
        assert status == -9, f"not killed: {said}"
        proof = folder / PROOFS[name]
        mine = proof.with_name("my notes.txt") if proof.exists() else folder / "my notes.txt"
        mine.write_text(MINE)
        status, _, said = start(PROGRAMS[name], folder, NEVER)
        assert mine.read_text() == MINE
        mine.unlink()
    assert status == 0, said
    assert (folder / "thesis.txt").read_text() == MINE
    assert not temporary(folder)
    shutil.rmtree(folder / "cache" / "decoded", ignore_errors=True)
    (folder / "cache" / "compiled").unlink()
    return snapshot(folder)


@pytest.mark.long
@pytest.mark.parametrize("name", PROGRAMS)
def test_killed_and_started_again_nothing_differs(place, earlier, name):
    data = snapshot(place / "data") | snapshot(place / "fit")
    whole = kill(name, NEVER, 0, place, earlier)
    assert len(whole) > 1
    changes = (place / f"{name}-{NEVER}-0.changes").stat().st_size
    places = [1 + int((n + 0.5) * changes / KILLS) for n in range(KILLS)]
    # An export changes fewer files: then also between two changes.
    points = [(at, LATER * places[:n].count(at)) for n, at in enumerate(places)]
    wrong = []

    def one(point):
        at, seconds = point
        try:
            found = kill(name, at, seconds, place, earlier)
            differs = sorted(key for key in whole | found if whole.get(key) != found.get(key))
        except AssertionError as error:
            differs = [str(error)[-2000:]]
        wrong.extend(f"at {at} + {seconds} s: {key}" for key in differs)
        when = f"{at} + {seconds} s of {changes}"
        print(f"\n{name} killed at change {when}: {differs or 'equal'}", flush=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, points))
    assert len(set(points)) == KILLS
    assert not wrong, "\n".join(wrong)
    assert data == snapshot(place / "data") | snapshot(place / "fit")
