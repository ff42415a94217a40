"""Two processes on the loopback address compute what one computes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.training import hosts
from tests.data.trees import mvtec_tree

TRAIN = """
import sys
import jax
import numpy as np
from imvad_jax.training import hosts
count, number, address, float64, out = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
jax.config.update("jax_num_cpu_devices", 2 // count)
hosts.connect(address if count > 1 else None, count, number)
jax.config.update("jax_enable_x64", float64 == "True")
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from tests.methods.small import images
from tests.training.toy import make

detector, variables = make(epochs=10 if float64 == "True" else 1,
                           dtype="float64" if float64 == "True" else "float32")
if float64 == "True":
    variables = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(variables))
fitted = fit(detector, variables, images(16 if float64 == "True" else 8), Parallel())
found = score(detector, fitted, images(5, 1), Parallel())
if hosts.is_first():
    leaves = jax.tree.leaves(fitted["params"])
    np.savez(out, *leaves, score=found.image, maps=found.maps, allow_pickle=False)
hosts.wait("end")
"""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run_all(commands, cwd=None):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    running = [
        subprocess.Popen(
            [sys.executable, *command], env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )
        for command in commands
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in running]
    for process, output in zip(running, outputs):
        assert process.returncode == 0, output[-3000:]
    return outputs


@pytest.mark.parametrize(("float64", "tolerance"), [(True, 1e-9), (False, 1e-5)])
def test_training_and_scores_of_two_processes_are_those_of_one(tmp_path, float64, tolerance):
    address = free_address()
    for count in (1, 2):
        run_all(
            ["-c", TRAIN, str(count), str(n), address, str(float64), str(tmp_path / f"{count}.npz")]
            for n in range(count)
        )
    with np.load(tmp_path / "1.npz") as one, np.load(tmp_path / "2.npz") as two:
        assert one.files == two.files and len(one.files) > 3
        for name in one.files:
            assert np.abs(one[name] - two[name]).max() < tolerance, name


def test_the_program_on_two_hosts_writes_what_it_writes_on_one(tmp_path):
    data = mvtec_tree(tmp_path / "data", train=7)
    address = free_address()

    def command(count, number, name, *flags):
        return [
            "-m", "experiments.run", "--preset=smoke", "--weights=random", f"--data_dir={data}",
            f"--num_devices={2 // count}", f"--num_processes={count}", f"--process_id={number}",
            *([f"--coordinator_address={address}"] if count > 1 else []),
            f"--workdir={tmp_path / name}{count}", f"--cache_dir={tmp_path / 'cache'}", *flags,
        ]  # fmt: skip

    for name, flags in {
        "cfa": ("--method=cfa", "--epochs=1", "--layers=layer1"),
        "patchcore": ("--method=patchcore", "--layers=layer1"),
    }.items():
        (whole,) = run_all([command(1, 0, name, *flags)])
        first, second = run_all([command(2, number, name, *flags) for number in range(2)])
        assert "image AUROC" in whole and "image AUROC" in first
        assert "image AUROC" not in second  # the first one speaks
        one, two = (
            json.loads((tmp_path / f"{name}{count}" / "metrics.json").read_text())
            for count in (1, 2)
        )
        assert one == pytest.approx(two, abs=1e-4)
        files = [
            sorted(path.name for path in (tmp_path / f"{name}{count}").iterdir())
            for count in (1, 2)
        ]
        assert files[0] == files[1]


def test_shares_cover_everything(monkeypatch):
    monkeypatch.setattr("jax.process_count", lambda: 3)
    for total in (1, 2, 3, 7, 9):
        parts, equal = [], []
        for number in range(3):
            monkeypatch.setattr("jax.process_index", lambda number=number: number)
            parts.append(hosts.own(total))
            equal.append(hosts.equal_share(total))
        assert np.concatenate(parts).tolist() == list(range(total))
        assert len({len(part) for part in equal}) == 1
        assert np.concatenate(equal)[:total].tolist() == list(range(total))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1", 2, 2), "--process_id=2 --num_processes=2"),
        ((None, 2, 0), "--coordinator_address="),
        (("nowhere", 2, 0), "expected HOST:PORT"),
    ],
)
def test_bad_addresses_and_numbers(arguments, message):
    with pytest.raises(UserError, match=message):
        hosts.connect(*arguments)
