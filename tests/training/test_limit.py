"""A limit of time: what is begun ends in time, and what was stopped goes on to the same bits."""

import jax
import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.methods import METHODS
from imvad_jax.training import gradient
from imvad_jax.training.checkpoint import TrainingCheckpoints
from imvad_jax.training.fit import fit
from imvad_jax.training.limit import (
    GRACE,
    LIMIT_STATUS,
    SIGNAL_STATUS,
    Limit,
    Pace,
    Stopped,
    limited,
    parse_seconds,
)
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images, make

TRAINED = [name for name, method in METHODS.items() if "gradient" in method.detector.phases]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_times_are_read_and_nonsense_is_refused():
    times = {"90s": 90, "9m": 540, "8h": 28800, "1.5h": 5400, "30": 30}
    assert {text: parse_seconds(text) for text in times} == times
    for text in ("", "soon", "-5s", "0", "5 days", "9mm"):
        with pytest.raises(UserError, match=f"time_limit={text}: expected a time such as"):
            parse_seconds(text)


def test_a_work_is_begun_only_if_it_is_expected_to_end(clock):
    limit = Limit(100, clock)
    assert limit.fits(86) and not limit.fits(87)  # with a margin
    limit.require(86, "it")
    with pytest.raises(Stopped, match="it needs about 5 min; 2 min are left") as caught:
        limit.require(300, "it")
    assert caught.value.status == LIMIT_STATUS
    clock.now += 100
    with pytest.raises(Stopped, match="stopped before the images"):
        limit.check("the images")
    assert Limit().fits(1e12)
    limit.restart(None)
    limit.check("anything")


def test_a_signal_leaves_some_seconds_and_is_passed_on(clock):
    limit, told = Limit(1000, clock), []
    limit.on_end(lambda: told.append(clock.now))
    clock.now += 5
    limit.end_soon()
    limit.end_soon()
    assert told == [105] and limit.left == GRACE and limit.fits(10)
    with pytest.raises(Stopped) as caught:
        limit.check("more")
    assert caught.value.status == SIGNAL_STATUS


def test_the_pace_is_learnt_after_what_compiles(clock):
    pace = Pace(100, Limit(None, clock))
    for seconds, count in ((60, 10), (2, 10), (2, 10)):
        assert pace.rest is None
        clock.now += seconds
        pace.add(count)
    assert pace.rest == pytest.approx(2 / 10 * 70)


def test_a_pass_that_cannot_end_in_time_is_stopped(clock):
    shown = []
    progress = limited(lambda total, label: shown.append, Limit(100, clock))

    def work(total, label, seconds=2):
        done = progress(total, label)
        for _ in range(total):
            clock.now += seconds
            done(1)

    work(20, "score")
    with pytest.raises(Stopped, match=r"stopped during 'score', 3 of 100 \(3 min more"):
        work(100, "score")
    work(20, "train")  # it is stopped between its epochs
    assert sum(shown) == 43


def training(method, tmp_path, limit, on_epoch=lambda epoch, metrics: None, epochs=4):
    # With the batches and devices of tests/methods, which compile the same programs.
    detector, variables = make(method, epochs=epochs)
    saved = TrainingCheckpoints(tmp_path / method, every=100)
    try:
        return fit(
            detector, variables, images(8), Parallel(jax.devices()[:2]),
            checkpoints=saved, limit=limit, on_epoch=on_epoch,
        )  # fmt: skip
    finally:
        saved.close()


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path, clock, method):
    """By the limit after the first epoch, by a signal after the third."""
    expected = training(method, tmp_path / "at once", Limit())
    limit = Limit(100, clock)

    def pass_time(epoch, metrics):
        clock.now += 60

    with pytest.raises(Stopped, match="stopped after epoch 1 of 4; the same command") as caught:
        training(method, tmp_path, limit, pass_time)
    assert caught.value.status == LIMIT_STATUS
    limit.restart(None)
    with pytest.raises(Stopped, match="stopped after epoch 3 of 4") as caught:
        training(method, tmp_path, limit, lambda epoch, _: epoch == 3 and limit.end_soon())
    assert caught.value.status == SIGNAL_STATUS
    found = training(method, tmp_path, Limit())
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_first_epoch_is_judged_by_its_steps(tmp_path, clock, monkeypatch):
    step = gradient.training_step

    def slow(*given):
        compiled = step(*given)

        def call(*arguments):
            clock.now += 10
            return compiled(*arguments)

        return call

    monkeypatch.setattr(gradient, "training_step", slow)
    detector, variables = make("stpm", epochs=2, batch_size=4)
    saved = TrainingCheckpoints(tmp_path, every=1)
    with pytest.raises(Stopped, match=r"within epoch 1 of 2, which needs .* saved is epoch 0"):
        fit(detector, variables, images(80), Parallel(jax.devices()[:1]), checkpoints=saved,
            limit=Limit(150, clock))  # fmt: skip
    saved.close()
