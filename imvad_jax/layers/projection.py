"""The projection head and linear layer of a classifier, initialised as in PyTorch."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from imvad_jax.layers.initializers import torch_uniform
from imvad_jax.layers.norm import batch_norm


def linear(features: int, width: int, dtype: Any, use_bias: bool = True, **options) -> nn.Dense:
    """A linear layer of `width` inputs; weights and biases uniform in +- 1 / sqrt(width)."""
    start = torch_uniform(width)
    return nn.Dense(
        features, use_bias=use_bias, dtype=dtype, kernel_init=start, bias_init=start, **options
    )


class ProjectionHead(nn.Module):
    """Linear layer, batch normalisation and ReLU for each width, then a linear layer to classes.

    Linear layers before a batch norm have no bias, which the batch norm would cancel.
    """

    widths: Sequence[int]
    classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """Logits `[B, classes]` of embeddings `[B, D]`."""
        for number, width in enumerate(self.widths):
            x = linear(width, x.shape[-1], self.dtype, use_bias=False, name=f"linear{number}")(x)
            x = batch_norm(train, self.dtype, negative_slope=0, name=f"norm{number}")(x)
        return linear(self.classes, x.shape[-1], self.dtype, name="classifier")(x)
