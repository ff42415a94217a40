"""Two processes on the loopback address compute what one computes."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from imvad_jax import sealed
from imvad_jax.errors import UserError
from imvad_jax.training import hosts
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from tests.data.trees import mvtec_tree
from tests.methods.small import images
from tests.training.toy import make

TRAIN = """
import sys
import jax
import numpy as np
from imvad_jax.training import hosts
from tests.training.test_hosts import train_and_score
number, address, out = int(sys.argv[1]), *sys.argv[2:]
jax.config.update("jax_num_cpu_devices", 1)
hosts.connect(address, 2, number)
found = train_and_score(jax.devices())
if hosts.is_first():
    np.savez(out, *found, allow_pickle=False)
hosts.wait("end")
"""


def train_and_score(devices) -> list[np.ndarray]:
    """Parameters after 20 steps in float64, by both loops, then after one in float32; scores and
    maps of each.
    """
    parallel, found = Parallel(devices), []
    for dtype, epochs, count, loop in (
        ("float64", 10, 16, "host"), ("float64", 10, 16, "device"), ("float32", 1, 8, "host")
    ):  # fmt: skip
        with jax.enable_x64(dtype == "float64"):
            detector, variables = make(epochs=epochs, dtype=dtype)
            variables = jax.device_get(variables)
            variables = jax.tree.map(lambda x, dtype=dtype: np.asarray(x, dtype), variables)
            fitted = fit(detector, variables, images(count), parallel, training_loop=loop)
            found += jax.tree.leaves(fitted["params"])
            found += score(detector, fitted, images(5, 1), parallel)
    return found


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run_all(commands):
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


@pytest.mark.slow
def test_training_and_scores_of_two_processes_are_those_of_one(tmp_path):
    address = free_address()
    run_all(["-c", TRAIN, str(number), address, str(tmp_path / "two.npz")] for number in range(2))
    one = train_and_score(jax.devices()[:2])
    with np.load(tmp_path / "two.npz") as two:
        assert len(two.files) == len(one)
        for a, name in zip(one, two.files):
            b = two[name]
            tolerance = 1e-9 if b.dtype == np.float64 else 1e-5
            assert a.dtype == b.dtype and np.abs(a - b).max() < tolerance, name


@pytest.mark.slow
def test_the_program_on_two_hosts_writes_what_it_writes_on_one(tmp_path):
    data = mvtec_tree(tmp_path / "data", train=7)
    address = free_address()

    def command(count, number, *flags):
        return [
            "-m", "experiments.run", "--preset=smoke", "--weights=random", f"--data_dir={data}",
            f"--num_devices={2 // count}", f"--num_processes={count}", f"--process_id={number}",
            *([f"--coordinator_address={address}"] if count > 1 else []),
            f"--workdir={tmp_path / 'run'}{count}", f"--cache_dir={tmp_path / 'cache'}", *flags,
        ]  # fmt: skip

    # CFA has a statistics phase and a gradient phase.
    flags = ("--method=cfa", "--epochs=1", "--layers=layer1")
    (whole,) = run_all([command(1, 0, *flags)])
    first, second = run_all([command(2, number, *flags) for number in range(2)])
    assert "image AUROC" in whole and "image AUROC" in first
    assert "image AUROC" not in second  # the first one speaks
    one, two = (sealed.read(tmp_path / f"run{n}/metrics.json") for n in (1, 2))
    assert one == pytest.approx(two, abs=1e-4)
    one, two = ({path.name for path in (tmp_path / f"run{n}").iterdir()} for n in (1, 2))
    assert one == two


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
        (("127.0.0.1:1", 2, 2), "process_id=2 num_processes=2"),
        ((None, 2, 0), "coordinator_address="),
        (("nowhere", 2, 0), "expected HOST:PORT"),
    ],
)
def test_bad_addresses_and_numbers(arguments, message):
    with pytest.raises(UserError, match=message):
        hosts.connect(*arguments)
