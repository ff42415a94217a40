"""What is promised of training: the same on 1 and 8 devices, resumable to the bit, never silent."""

import os
import signal
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from imvad_jax.errors import UserError
from imvad_jax.training.checkpoint import TrainingCheckpoints
from imvad_jax.training.fit import fit
from imvad_jax.training.gradient import epoch_order
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import COMPILES
from tests.methods.small import images
from tests.training.toy import make


def train(devices, count=16, float64=False, **overrides):
    detector, variables = make(dtype="float64" if float64 else "float32", **overrides)
    parallel = Parallel(jax.local_devices()[:devices])
    if float64:
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(variables))
    return fit(detector, variables, images(count), parallel)["params"]


def largest_difference(a, b):
    differences = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), a, b)
    return max(jax.tree.leaves(differences))


def test_20_steps_in_float64_agree_on_1_and_8_devices():
    with jax.enable_x64(True):
        one, eight = (train(n, epochs=10, float64=True) for n in (1, 8))
    assert largest_difference(one, eight) < 1e-9


def test_the_first_float32_step_agrees_on_1_and_8_devices():
    one, eight = (train(n, count=8, epochs=1) for n in (1, 8))
    assert largest_difference(one, eight) < 1e-5


def test_order_is_a_permutation_topped_up_from_its_start():
    order = epoch_order(seed=3, epoch=5, count=10, size=12)
    assert len(order) == 12 and sorted(order[:10]) == list(range(10))
    assert order[10:].tolist() == order[:2].tolist()
    np.testing.assert_array_equal(order, epoch_order(3, 5, 10, 12))
    assert order.tolist() != epoch_order(3, 6, 10, 12).tolist()


def test_an_epoch_longer_or_shorter_than_a_pass():
    order = epoch_order(seed=0, epoch=0, count=3, size=8)
    assert sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2]
    assert order[6:].tolist() == order[:2].tolist()
    assert len(set(epoch_order(seed=0, epoch=0, count=10, size=4))) == 4


def test_a_batch_is_split_over_as_many_devices_as_divide_it():
    parallel = Parallel(jax.local_devices())
    assert [parallel.dividing(n).count for n in (4, 8, 12, 7, 3)] == [4, 8, 6, 7, 3]


def test_a_second_category_compiles_no_step():
    detector, variables = make()
    parallel = Parallel(jax.local_devices()[:2])
    fit(detector, variables, images(16, 0), parallel)
    before = COMPILES.programs
    fit(detector, variables, images(33, 1), parallel, seed=1)
    assert COMPILES.programs == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    detector, variables = make(learning_rate=1e30, epochs=5)
    checkpoints = TrainingCheckpoints(tmp_path)
    saved = []
    with pytest.raises(UserError, match=r"loss is not finite.*learning_rate"):
        fit(detector, variables, images(8), Parallel(jax.local_devices()[:1]),
            checkpoints=checkpoints, on_epoch=lambda epoch, _: saved.append(epoch))  # fmt: skip
    checkpoints.wait()
    assert checkpoints.latest() == len(saved) < 5
    checkpoints.close()


def test_a_checkpoint_of_8_devices_is_resumed_on_1(tmp_path):
    parallel = Parallel(jax.local_devices())
    detector, variables = make(epochs=2)
    checkpoints = TrainingCheckpoints(tmp_path)
    fit(detector, variables, images(8), parallel, checkpoints=checkpoints)
    checkpoints.close()
    longer, start = make(epochs=3)
    checkpoints = TrainingCheckpoints(tmp_path)
    epochs = []
    fit(longer, start, images(8), Parallel(jax.local_devices()[:1]), checkpoints=checkpoints,
        on_epoch=lambda epoch, metrics: epochs.append(epoch))  # fmt: skip
    checkpoints.close()
    assert epochs == [3]


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    checkpoints = TrainingCheckpoints(tmp_path)
    checkpoints.save(1, {"a": np.ones(3)})
    checkpoints.wait()
    with pytest.raises(UserError, match="another network"):
        checkpoints.resume({"a": np.ones(4)})
    checkpoints.close()


KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import numpy as np
from tests.methods.small import images
from tests.training.toy import make
from imvad_jax.data.batches import ArrayImages
from imvad_jax.training.checkpoint import TrainingCheckpoints
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel

directory, kill_at, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Deadly(ArrayImages):  # dies when batch number kill_at is asked for
    asked = 0
    def batches(self, *arguments):
        for batch in super().batches(*arguments):
            Deadly.asked += 1
            if Deadly.asked == kill_at:
                checkpoints.wait()
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

detector, variables = make(epochs=3)
checkpoints = TrainingCheckpoints(directory)
fitted = fit(detector, variables, Deadly(images(24).images), Parallel(), checkpoints=checkpoints)
checkpoints.close()
leaves = jax.tree.leaves(fitted)
np.savez(out, *[np.asarray(leaf) for leaf in leaves], allow_pickle=False)
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_an_epoch_it_resumes_bit_identically(tmp_path):
    def run(directory, kill_at):
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path / directory), str(kill_at),
             str(tmp_path / f"{directory}.npz")],
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        ).returncode  # fmt: skip

    assert run("killed", kill_at=5) == -signal.SIGKILL  # the second batch of the second epoch
    assert not (tmp_path / "killed.npz").exists()
    assert run("killed", kill_at=0) == 0
    assert run("whole", kill_at=0) == 0
    with np.load(tmp_path / "killed.npz") as killed, np.load(tmp_path / "whole.npz") as whole:
        assert killed.files == whole.files
        for name in whole.files:
            np.testing.assert_array_equal(killed[name], whole[name])


def test_optimisers_are_pytorchs():
    from imvad_jax.methods.base import TrainedConfig
    from imvad_jax.training.optimizers import make_optimizer

    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 3))
    start = rng.normal(size=3)

    def ours(**settings):
        config = TrainedConfig(learning_rate=0.1, weight_decay=0.05, **settings)
        optimizer = make_optimizer(config, 6)
        x, state = start.astype(np.float32), None
        state = optimizer.init(x)
        for gradient in gradients.astype(np.float32):
            updates, state = optimizer.update(gradient, state, x)
            x = optax.apply_updates(x, updates)
        return x

    def sgd():
        x, velocity = start.copy(), 0
        for gradient in gradients:
            velocity = 0.9 * velocity + gradient + 0.05 * x
            x = x - 0.1 * velocity
        return x

    def adam(decoupled=False, amsgrad=False):
        # torch.optim.Adam / AdamW: the maximum of amsgrad is over uncorrected second moments.
        x, first, second, largest = start.copy(), 0, 0, 0
        for t, gradient in enumerate(gradients, 1):
            if decoupled:
                x = x * (1 - 0.1 * 0.05)
            else:
                gradient = gradient + 0.05 * x
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            largest = np.maximum(largest, second)
            moment = (largest if amsgrad else second) / (1 - 0.999**t)
            x = x - 0.1 * first / (1 - 0.9**t) / (np.sqrt(moment) + 1e-8)
        return x

    np.testing.assert_allclose(ours(optimizer="sgd"), sgd(), rtol=1e-5)
    for amsgrad in (False, True):
        expected = adam(amsgrad=amsgrad)
        np.testing.assert_allclose(ours(optimizer="adam", amsgrad=amsgrad), expected, rtol=1e-4)
        expected = adam(decoupled=True, amsgrad=amsgrad)
        np.testing.assert_allclose(ours(optimizer="adamw", amsgrad=amsgrad), expected, rtol=1e-4)


def test_step_schedule_multiplies_the_rate_after_shares_of_all_steps():
    from imvad_jax.methods.base import TrainedConfig
    from imvad_jax.training.optimizers import make_schedule

    def rates(steps, **settings):
        config = TrainedConfig(learning_rate=0.5, schedule="step", **settings)
        schedule = jax.jit(lambda step, steps: make_schedule(config, steps)(step))
        return [float(schedule(np.int32(step), np.int32(steps))) for step in range(steps)]

    expected = 16 * [0.5] + 2 * [0.1] + 2 * [0.02]
    np.testing.assert_allclose(rates(20), expected, rtol=1e-6)
    found = rates(7, decay_at=(0.5,), decay_factor=0.1)  # to the nearest step
    np.testing.assert_allclose(found, 4 * [0.5] + 3 * [0.05], rtol=1e-6)
    np.testing.assert_allclose(rates(3, decay_at=()), 3 * [0.5])


def test_a_decay_of_21000_steps_begins_where_the_epoch_does():
    from imvad_jax.methods.base import TrainedConfig
    from imvad_jax.training.optimizers import make_schedule

    config = TrainedConfig(learning_rate=1.0, schedule="step")
    rate = jax.jit(lambda step: make_schedule(config, np.int32(21000))(step))
    found = [float(rate(np.int32(step))) for step in (16799, 16800, 18899, 18900)]
    np.testing.assert_allclose(found, [1, 0.2, 0.2, 0.04], rtol=1e-6)


def test_shares_are_parsed_as_numbers():
    from imvad_jax.methods.base import TrainedConfig, config_from_strings

    config = config_from_strings(TrainedConfig(), {"decay_at": "0.5, .75", "decay_factor": ".1"})
    assert config.decay_at == (0.5, 0.75) and config.decay_factor == 0.1
    with pytest.raises(UserError, match="decay_at=half: expected a value of type tuple of float"):
        config_from_strings(TrainedConfig(), {"decay_at": "half"})


def test_unknown_optimiser_and_schedule():
    from imvad_jax.methods.base import TrainedConfig
    from imvad_jax.training.optimizers import make_optimizer

    with pytest.raises(UserError, match="did you mean 'adam'"):
        make_optimizer(TrainedConfig(optimizer="adan"), 1)
    with pytest.raises(UserError, match="schedule"):
        make_optimizer(TrainedConfig(schedule="linear"), 1)
    with pytest.raises(UserError, match="decay_at"):
        make_optimizer(TrainedConfig(schedule="step", decay_at=(0.8, 1.5)), 1)
    with pytest.raises(UserError, match="amsgrad"):
        make_optimizer(TrainedConfig(optimizer="sgd", amsgrad=True), 1)
