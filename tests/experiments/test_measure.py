"""Timing on clocks that the tests turn themselves."""

import os
import subprocess
import sys

import pytest

from imvad_jax.benchmarks.in_turn import timed
from imvad_jax.benchmarks.measure import (
    OtherLoad,
    Samples,
    measure,
    own_cpu_seconds,
    ratio,
    steps_for,
    summary,
)
from imvad_jax.benchmarks.workloads import Options
from imvad_jax.errors import UserError


class Machine:
    """A clock, and calls that take a known time a step."""

    def __init__(self):
        self.now = self.cpu = 0.0
        self.log = []

    def call(self, name, seconds, cores=1.0, first=0.0):
        extra = [first]

        def run(steps):
            self.log.append((name, steps))
            passed = steps * seconds + (extra.pop() if extra else 0)
            self.now += passed
            self.cpu += passed * cores

        return run

    def measure(self, calls, repeats, least=0.0, **how):
        return measure(calls, repeats, least, lambda: self.now, lambda: self.cpu, **how)


def test_repeats_alternate_and_the_warm_up_is_not_counted():
    machine = Machine()
    calls = {"a": machine.call("a", 2.0, cores=1.5, first=100), "b": machine.call("b", 3.0)}
    found = machine.measure(calls, 3)
    assert machine.log == [("a", 1), ("b", 1)] + 3 * [("a", 1), ("b", 1)]
    assert found["a"] == Samples(3 * [2.0], 3 * [3.0])
    assert found["b"] == Samples(3 * [3.0], 3 * [3.0])
    assert ratio(found, "a", "b") == pytest.approx(2 / 3)
    assert ratio(found, "a", "b", "cpu") == 1


def test_a_turn_may_begin_with_a_step_that_is_not_counted():
    machine = Machine()

    def pays_after_others(name, seconds):
        def run(steps):
            late = machine.log and machine.log[-1] != name
            machine.log.append(name)
            machine.now += steps * seconds + (50 if late else 0)

        return run

    calls = {name: pays_after_others(name, 2.0) for name in "ab"}
    found = machine.measure(calls, 2, settle=True)
    assert machine.log == list("ab" + 2 * "aabb")
    assert found["a"].wall == found["b"].wall == [2.0, 2.0]


def test_short_steps_are_repeated_and_seconds_are_those_of_one():
    machine = Machine()
    found = machine.measure({"a": machine.call("a", 0.25, first=9)}, 2, 1.0)
    assert machine.log == [("a", 1), ("a", 1), ("a", 4), ("a", 4)]
    assert found["a"].wall == [0.25, 0.25]


def test_steps_of_a_repeat_have_both_bounds():
    assert [steps_for(one, 1.0) for one in (3.0, 0.3, 1e-4, 0.0)] == [1, 4, 100, 100]


def test_summary_is_the_median_with_both_ends():
    assert summary([3.0, 1.0, 8.0, 2.0]) == {"median": 2.5, "min": 1.0, "max": 8.0, "repeats": 4}


def test_other_load_leaves_this_process_out(tmp_path):
    second = os.sysconf("SC_CLK_TCK")
    stat, cpu = tmp_path / "stat", [5.0]

    def write(user, nice, system, idle, steal):
        ticks = (user, nice, system, idle, 0, 0, 0, steal)
        stat.write_text("cpu  " + " ".join(str(t * second) for t in ticks) + " 0 0\ncpu0 1 2\n")

    write(100, 0, 0, 100, 0)
    load = OtherLoad(stat, lambda: cpu[0])
    write(104, 1, 1, 113, 1)  # 20 s pass, 7 of them busy, 3 of these ours
    cpu[0] += 3.0
    assert load.share() == pytest.approx(0.2)
    cpu[0] += 100.0
    assert load.share() == 0


def test_processes_that_were_started_are_no_others():
    before = own_cpu_seconds()
    busy = "import time\nwhile time.process_time() < 0.5: pass"
    grandparent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}])"
    subprocess.run([sys.executable, "-c", grandparent], check=True)
    assert own_cpu_seconds() - before > 0.49


def test_other_load_is_unknown_where_the_system_says_nothing(tmp_path):
    assert OtherLoad(tmp_path / "absent").share() is None


@pytest.mark.parametrize("difference", [float("nan"), 2e24, 0.06])
def test_what_has_another_result_is_not_timed(difference):
    def untimed(count):
        raise AssertionError

    with pytest.raises(UserError, match="another result than ours, by .* of its size; not timed"):
        timed(Options(), untimed, untimed, difference)


@pytest.mark.parametrize("difference", [None, 0.01])
def test_two_calls_in_turn(difference):
    order = []
    options = Options(repeats=2, least_seconds=0)
    found = timed(options, lambda n: order.append("o"), lambda n: order.append("t"), difference)
    assert "".join(order) == "ot" + "oott" * 2  # warmed up; before each turn one is not timed
    assert found["difference"] == difference
    assert found["ours_s"]["repeats"] == 2
