"""What must not be computed in half precision."""

import jax.numpy as jnp
from jax import Array


def full_precision(x: Array) -> Array:
    """`x` in float32 (float64 stays): losses, likelihoods and scores need the range."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
