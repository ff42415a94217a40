"""Initialisers of PyTorch's layers, on which the official implementations rely."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def torch_uniform(fan_in: int) -> Callable[..., Array]:
    """PyTorch's start of weights and biases of linear and convolutional layers alike.

    Uniform in +- 1 / sqrt(fan in), the number of inputs of one output.
    """
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        # Drawn flat: a draw of four dimensions takes twice as long to compile.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def normal(mean: float, std: float) -> Callable[..., Array]:
    """Independent draws from N(mean, std^2)."""

    def init(key, shape, dtype=jnp.float32):
        return mean + std * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return init
