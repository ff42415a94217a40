"""Programs for processors: as under `jax.pmap`, in an order that keeps to one branch at a time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from imvad_jax.ops.collectives import AXIS
from imvad_jax.training import compiled, features, gradient
from imvad_jax.training.flops import count_flops
from imvad_jax.training.parallel import Parallel
from tests.methods.small import fitted

TWO = jax.local_devices()[:2]


@pytest.fixture
def unknown(monkeypatch):
    """An option that this XLA does not have, as a later one may not have ours."""
    monkeypatch.setattr(compiled, "_ORDER", {"xla_cpu_of_another_version": False})
    compiled.options.cache_clear()
    yield
    compiled.options.cache_clear()


def step(state, fixed, batch, key):
    own = lax.axis_index(AXIS) + 1
    state = jax.tree.map(lambda leaf: leaf + lax.psum((batch @ fixed).sum() * own, AXIS), state)
    return state, jax.random.normal(jax.random.fold_in(key, lax.axis_index(AXIS)), (2,))


def arguments():
    rng = np.random.default_rng(0)
    state = {"a": jnp.zeros(3), "n": jnp.zeros((), jnp.int32)}
    return state, rng.normal(size=(4, 4)), rng.normal(size=(2, 5, 4)), jax.random.key(1)


SPLIT = (False, False, True, False)


@pytest.mark.parametrize("joined", [False, True])
def test_the_same_as_pmap(joined):
    expected = jax.pmap(
        step, axis_name=AXIS, in_axes=(None, None, 0, None), devices=TWO,
        out_axes=None if joined else 0,
    )(*arguments())  # fmt: skip
    found = compiled.mapped(step, TWO, SPLIT, (), joined)(*arguments())
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        if not joined:
            assert one.sharding.is_equivalent_to(other.sharding, one.ndim)
        np.testing.assert_array_equal(one, other)


def test_what_is_donated_is_overwritten():
    parallel = Parallel(TWO)
    state, *rest = arguments()
    placed = parallel.replicate(state)
    run = parallel.compile(lambda *given: step(*given)[0], SPLIT, donate=(0,), joined=True)
    again = run(run(placed, *rest), *rest)
    assert placed["a"].is_deleted() and not again["a"].is_deleted()


def branches(x):
    """Sixteen chains of four products, whose ends are multiplied one after the other."""
    found = x
    for number in range(1, 17):
        y = x * number
        for _ in range(4):
            y = jnp.tanh(y @ x)
        found = found @ y
    return found


def most_at_once(program: str) -> int:
    """The largest number of matrices that wait for their use, in the order of the program."""
    entry = program[program.index("\nENTRY") :]
    lines = [line for line in entry.splitlines() if " = " in line]
    last: dict[str, int] = {}
    for number, line in enumerate(lines):
        for name in re.findall(r"%[\w.-]+", line.split(" = ", 1)[1]):
            last[name] = number
    made = [
        (number, last[name])
        for number, line in enumerate(lines)
        if (name := line.split(" = ")[0].split()[-1]) in last and "= f32[64,64]" in line
    ]
    return max(sum(first <= now < end for first, end in made) for now in range(len(lines)))


def test_one_branch_follows_the_other():
    x = np.eye(64, dtype=np.float32)[None].repeat(2, 0)
    ours = compiled.mapped(branches, TWO, (True,), (), False).lower(x).compile().as_text()
    usual = jax.pmap(branches, devices=TWO).lower(x).compile().as_text()
    assert most_at_once(ours) < most_at_once(usual) / 2


def trained(method):
    gradient.training_step.cache_clear()
    features._frozen_step.cache_clear()
    try:
        return fitted(method, count=8)[1]
    finally:
        gradient.training_step.cache_clear()
        features._frozen_step.cache_clear()


@pytest.mark.parametrize("method", ["stpm", "cutpaste"])
def test_a_training_by_pmap_as_on_accelerators(method, monkeypatch):
    ours = trained(method)
    monkeypatch.setattr(compiled, "options", lambda platform: None)
    by_pmap = trained(method)
    pairs = zip(jax.tree.leaves(by_pmap["params"]), jax.tree.leaves(ours["params"]), strict=True)
    for one, other in pairs:  # rounded otherwise here and there
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * np.abs(other).max())


@pytest.mark.usefixtures("unknown")
def test_an_option_that_xla_does_not_know_is_left_out():
    assert compiled.options("cpu") is None
    found = compiled.mapped(step, TWO, SPLIT, (), False)(*arguments())
    assert jax.tree.leaves(found)[0].shape == (2, 3)


@pytest.mark.parametrize("own", [True, False])
def test_what_is_computed_can_be_counted(own):
    x, split = np.ones((2, 3, 3), np.float32), (True,)
    ours = compiled.mapped(lambda x: x @ x, TWO, split, (), False)
    function = ours if own else jax.pmap(lambda x: x @ x)
    assert count_flops(compiled.traced(function, x)) == (2 * 54, True)


def test_this_xla_knows_ours():
    assert compiled.options("cpu") and compiled.options("gpu") is None
