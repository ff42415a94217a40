"""The same results with loops and without."""

import jax
import jax.numpy as jnp
import numpy as np

from imvad_jax.ops import loops, neighbors


def search(queries, bank):
    valid = jnp.arange(len(bank)) < 40
    return loops.each(lambda one: neighbors.nearest(one, bank, 3, valid, block=16), queries)


def test_without_loops_the_results_are_the_same():
    rng = np.random.default_rng(0)
    queries, bank = (rng.normal(size=s).astype(np.float32) for s in ((2, 7, 4), (45, 4)))
    with_loops = str(jax.make_jaxpr(search)(queries, bank))
    expected = search(queries, bank)
    with loops.unrolled():
        without = str(jax.make_jaxpr(lambda *a: search(*a))(queries, bank))
        found = search(queries, bank)
    assert "scan" in with_loops and "scan" not in without and "while" not in without
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])
    assert "scan" in str(jax.make_jaxpr(lambda *a: search(*a))(queries, bank))
