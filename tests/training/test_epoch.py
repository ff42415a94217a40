"""Both loops of a training end alike; that on the devices compiles once and stops in time."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.data.batches import ArrayImages
from imvad_jax.errors import UserError
from imvad_jax.training import epoch, gradient, loops
from imvad_jax.training.checkpoint import TrainingCheckpoints
from imvad_jax.training.epoch import CAPACITY, SECONDS, DeviceLoop
from imvad_jax.training.fit import fit
from imvad_jax.training.job import Job
from imvad_jax.training.limit import Limit, Stopped
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.timing import COMPILES
from imvad_jax.training.watch import Watch
from tests.methods.small import images
from tests.methods.small import make as make_method
from tests.training import toy
from tests.training.toy import make


class Noisy(toy.Toy):
    """The toy, of which every image is given noise of its own in every step."""

    def loss(self, images):
        def draw(key):
            return jax.random.normal(key, images.shape[1:])

        return super().loss(images + 0.1 * jax.vmap(draw)(self.image_keys(len(images))))


def noisy(**settings):
    detector, variables = make(**settings)
    return Noisy(detector.config), variables


def train(loop, made, devices=1, count=18, **options):
    metrics = []
    fitted = fit(
        *made, images(count), Parallel(jax.local_devices()[:devices]), training_loop=loop,
        on_epoch=lambda number, found: metrics.append(found), **options,
    )  # fmt: skip
    return {name: fitted[name] for name in ("params", "batch_stats") if name in fitted}, metrics


def assert_alike(one, two, tolerance=1e-6):
    """Within the tolerance of the largest value of a collection."""
    for name in one:
        a, b = (jax.tree.leaves(variables[name]) for variables in (one, two))
        largest = max(np.abs(leaf).max() for leaf in a)
        assert max(np.abs(x - y).max() for x, y in zip(a, b, strict=True)) <= tolerance * largest


def assert_same_training(made, devices, count=18):
    host, seen = train("host", made, devices, count)
    device, found = train("device", made, devices, count)
    assert_alike(host, device)
    assert len(seen) == len(found) == made[0].config.epochs
    for one, two in zip(seen, found, strict=True):
        assert one.keys() == two.keys() and one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(
    ("make", "settings"),
    [(make, {}), (noisy, {}), (make, {"cache_features": True}), (make, {"steps_per_epoch": 5})],
    ids=["batch norm", "noise", "kept features", "steps of an epoch"],
)
def test_two_epochs_of_both_loops_end_alike(make, settings, devices):
    assert_same_training(make(**settings), devices)


def test_in_float64_they_agree_to_rounding():
    with jax.enable_x64(True):
        detector, variables = make(dtype="float64", epochs=5)
        variables = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(variables))
        (host, _), (device, _) = (train(n, (detector, variables)) for n in ("host", "device"))
    assert host["params"]["Conv_0"]["kernel"].dtype == np.float64
    assert_alike(host, device, 1e-13)


@pytest.mark.parametrize(
    ("method", "settings", "devices"),
    [
        ("stpm", {"cache_features": True}, 2),
        ("draem", {"optimizer": "sgd"}, 1),
    ],
)
@pytest.mark.slow
def test_two_steps_of_a_method_end_alike(method, settings, devices):
    """At a small rate: many steps at a large one make much of rounding."""
    made = make_method(method, epochs=2, batch_size=4, learning_rate=1e-3, **settings)
    assert_same_training(made, devices, count=4)


def test_the_loop_compiles_once_for_any_number_of_epochs_and_images():
    _, before = train("device", make(epochs=2)), COMPILES.programs
    train("device", make(epochs=6), count=100)
    assert COMPILES.programs == before
    detector = make(epochs=2)[0].compile_key()
    assert gradient.device_loop(detector, tuple(jax.local_devices()[:1]))._cache_size() == 1


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    saved = TrainingCheckpoints(tmp_path)
    with pytest.raises(UserError, match=r"epoch 1: the loss is not finite.*of epoch 0. Lower"):
        train("device", make(learning_rate=1e30), checkpoints=saved)
    saved.close()


def test_stopped_between_epochs_it_goes_on_to_the_same_bits(tmp_path):
    def run(name, **options):
        saved = TrainingCheckpoints(tmp_path / name, every=100)
        try:
            return train("device", noisy(epochs=4), checkpoints=saved, **options)[0]
        finally:
            saved.close()

    whole, limit = run("whole"), Limit()
    progress = lambda total, label: lambda done: limit.end_soon()  # noqa: E731
    with pytest.raises(Stopped, match="stopped after epoch 1 of 4; the same command goes on"):
        run("stopped", limit=limit, progress=progress)
    jax.tree.map(np.testing.assert_array_equal, run("stopped"), whole)


class Clock:
    """Seconds that pass when a program runs."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def device():
    """A loop whose program compiles for 30 seconds and takes .15 a step; and what it was given."""
    clock = Clock()
    limit = Limit(100, clock)
    job, taken = Job(images(4), Parallel(jax.local_devices()[:1]), limit=limit), []

    def program(state, given, order, count):
        clock.now += 0.15 * count + (0 if taken else 30)
        taken.append(order[:, :count].T)
        return state + count, {"loss": jnp.arange(CAPACITY) + state}

    return DeviceLoop(program, {}, job.parallel, job), job, taken


def test_after_the_first_step_calls_take_about_two_seconds(device):
    loop, job, taken = device
    order = np.arange(2 * 40, dtype=np.int32).reshape(40, 2)
    watch = Watch(job, 40, 1)
    watch.begin(0)
    state, metrics = loop.run(0, order, watch)
    assert [len(part) for part in taken] == [1, 1, 13, 13, 12]
    assert int(SECONDS / 0.15) == 13
    np.testing.assert_array_equal(np.concatenate(taken), order)
    assert state == 40 and metrics["loss"].tolist() == list(range(40))


def test_a_long_epoch_is_stopped_between_two_calls(device):
    loop, job, taken = device
    watch = Watch(job, 4000, 1)
    watch.begin(0)
    with pytest.raises(Stopped, match="within epoch 1 of 1, which needs about 10 min more"):
        loop.run(0, np.zeros((4000, 2), np.int32), watch)
    assert sum(map(len, taken)) == 1 + 1 + 13


def test_images_lie_on_the_devices_in_colour_and_filled_up():
    grey = ArrayImages(images(5).images[..., :1])
    parallel = Parallel(jax.local_devices()[:2])
    found = epoch.on_devices(grey, parallel)
    assert found.shape == (128, 64, 64, 3) and found.dtype == np.uint8
    assert len(found.sharding.device_set) == 2 and found.sharding.is_fully_replicated
    np.testing.assert_array_equal(found[:5], np.repeat(grey.images, 3, axis=-1))
    assert not found[5:].any()


GIB = 2**30


def accelerator(free=GIB):
    """An accelerator with so many bytes; None: it does not say."""
    stats = {"bytes_limit": free + 5, "bytes_in_use": 5} if free is not None else None
    gpu = types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    return types.SimpleNamespace(local=[gpu], count=1)


class Files:
    """Images that are read from files at each pass."""

    def __len__(self):
        return 10


def test_the_rule():
    detector, some = make()[0], images(10)
    size = 128 * 64 * 64 * 3
    assert loops.bytes_on_device(detector, some) == size

    def chosen(parallel, given=some, needed=GIB - size, wanted="auto"):
        return loops.choose_loop(wanted, detector, given, parallel, needed=needed)

    assert chosen(accelerator()) == "device"
    assert chosen(accelerator(GIB - 1)) == "host"  # they do not fit
    assert chosen(accelerator(None)) == "host"  # it is not known whether they do
    assert chosen(accelerator(), Files()) == "host"
    assert chosen(accelerator(), wanted="host") == "host"
    cpu = Parallel(jax.local_devices()[:1])
    assert chosen(cpu) == "host" and chosen(cpu, wanted="device") == "device"


def test_kept_features_may_be_of_files():
    detector = make(cache_features=True)[0]
    assert loops.bytes_on_device(detector, Files()) == 128 * 64 * 64 * 3 * 4
    assert loops.choose_loop("device", detector, Files(), accelerator()) == "device"


def test_what_a_method_estimates_counts():
    detector, _ = make_method("stpm")
    needed = sum(detector.memory_estimate(10, 1).values())
    size = loops.bytes_on_device(detector, images(10))
    assert loops.choose_loop("auto", detector, images(10), accelerator(needed + size)) == "device"
    assert loops.choose_loop("auto", detector, images(10), accelerator(needed)) == "host"


@pytest.mark.parametrize(
    ("wanted", "given", "message"),
    [
        ("devise", images(4), "training_loop: unknown value 'devise'; did you mean 'device'"),
        ("device", Files(), "training_loop=device: these images are not held in memory"),
    ],
)
def test_what_cannot_be_is_refused(wanted, given, message):
    detector, variables = make()
    with pytest.raises(UserError, match=message):
        fit(detector, variables, given, Parallel(jax.local_devices()[:1]), training_loop=wanted)
