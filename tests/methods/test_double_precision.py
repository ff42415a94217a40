"""Every method runs where 64-bit numbers are enabled, and makes none by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax import methods
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel
from tests.methods.small import briefly, images, make


def dtypes(tree) -> set[str]:
    """The floating-point types in a tree."""
    leaves = jax.tree.leaves(tree)
    return {str(leaf.dtype) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}


@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_fit_and_scores_with_64_bits_enabled(method):
    """Statistics are gathered; parameters, gradients and scores are traced only, for its time."""
    detector, variables = briefly(*make(method))
    batch = jax.ShapeDtypeStruct((4, 64, 64, 3), jnp.float32)

    def loss(params, variables, x):
        (loss, _), _ = detector.apply(
            {**variables, "params": params}, x, method="image_loss", mutable=["batch_stats"],
            rngs={"noise": jax.random.key(0)},
        )  # fmt: skip
        return loss

    with jax.enable_x64(True):
        if "statistics" in detector.phases:
            one = Parallel(jax.local_devices()[:1])
            variables = fit(detector, variables, images(4), one, phases=("statistics",))
        if "gradient" in detector.phases:
            backbone = variables.get("backbone")
            assert dtypes(jax.eval_shape(lambda: init_variables(detector, backbone, 0))) == {
                "float32"
            }
            found = jax.eval_shape(jax.grad(loss), variables["params"], variables, batch)
            assert dtypes(found) == {"float32"}
        assert dtypes(jax.tree.map(np.asarray, variables)) == {"float32"}
        assert dtypes(jax.eval_shape(detector.apply, variables, batch)) == {"float32"}
