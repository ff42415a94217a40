"""Parameters of layers, found without tracing how they would be drawn."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array


def parameter(
    module: nn.Module, name: str, draw: Callable[..., Array], shape: Sequence[int]
) -> Array:
    """`module.param(name, draw, shape, float32)`, where a stored one of that shape is taken as is.

    Flax traces `draw` every time to learn the shape, which takes longer than some layers do. Any
    other shape stays its error.
    """
    if module.has_variable("params", name):
        stored = module.get_variable("params", name)
        # NumPy's, since jnp.shape becomes an operation of the graph while jax2onnx converts.
        if np.shape(stored) == tuple(shape):
            return stored
    return module.param(name, draw, shape, jnp.float32)
