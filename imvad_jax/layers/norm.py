"""Batch normalisation as PyTorch's, its statistics shared by all devices."""

import jax.numpy as jnp
from flax import linen as nn

from imvad_jax.ops.collectives import mapped_axis


def batch_norm(train: bool, dtype=jnp.float32, **options) -> nn.BatchNorm:
    """eps 1e-5, torch momentum .1 (flax .9); synchronised under pmap, so that 1 and N devices see
    the same batch statistics."""
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=mapped_axis() if train else None,
        **options,
    )
