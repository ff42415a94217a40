"""The layer norm of maps against flax's, and how it adds up."""

import jax
import numpy as np
from flax import linen as nn

from imvad_jax.layers.norm import MapNorm


def test_map_norm_is_the_layer_norm_of_flax_with_its_parameters():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 8, 6, 5)).astype(np.float32)
    params = {name: rng.normal(size=x.shape[1:]).astype(np.float32) for name in ("scale", "bias")}
    axes = {"reduction_axes": (1, 2, 3), "feature_axes": (1, 2, 3)}
    flax_norm = nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, **axes)
    key = jax.random.key(0)
    for own, other in zip(*(jax.tree.leaves(m.init(key, x)) for m in (MapNorm(), flax_norm))):
        np.testing.assert_array_equal(own, other)
    found, expected = (m.apply({"params": params}, x) for m in (MapNorm(), flax_norm))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_sum_runs_over_more_than_one_axis():
    x = np.zeros((2, 8, 6, 5), np.float32)
    jaxpr = jax.make_jaxpr(lambda x: MapNorm().init_with_output(jax.random.key(0), x)[0])(x)
    axes = [eqn.params["axes"] for eqn in jaxpr.eqns if eqn.primitive.name == "reduce_sum"]
    assert axes == 2 * [(3,), (2,), (1,)]
