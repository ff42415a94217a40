"""Kernels of networks that no training changes, made ready for use once."""

import functools

import jax
import jax.numpy as jnp

from imvad_jax import backbones
from imvad_jax.layers.conv import TRANSFORMED
from imvad_jax.methods.base import Detector
from imvad_jax.training.parallel import Parallel


def with_transformed(detector: Detector, variables: dict, parallel: Parallel) -> dict:
    """Fitted variables and the kernels of all networks that score, where these devices use them.

    Saved models and exports are without them: they take four times the room of plain kernels.
    """
    return _with(detector, variables, parallel, "__call__")


def with_transformed_backbone(detector: Detector, variables: dict, parallel: Parallel) -> dict:
    """As `with_transformed`, of the frozen backbone alone, before and while a model is fitted."""
    if not detector.outputs or "backbone" not in variables:
        return variables
    return _with(detector, variables, parallel, "features")


@functools.lru_cache(maxsize=64)
def backbone_bytes(detector: Detector) -> int:
    """Bytes of the frozen backbone's transformed kernels, a device; 0 where none is transformed."""
    if not detector.outputs or detector.config.convolution == "xla":
        return 0
    template = backbones.get(detector.config.backbone).variables_template(detector.outputs)
    found = jax.eval_shape(_transform(detector, "features"), {"backbone": template})
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(found))


def _with(detector: Detector, variables: dict, parallel: Parallel, method: str) -> dict:
    if parallel.local[0].platform != "cpu" or detector.config.convolution == "xla":
        return variables
    found = _transform(detector.compile_key(), method)(variables)
    return variables | {TRANSFORMED: found} if found else variables


@functools.lru_cache(maxsize=64)
def _transform(detector: Detector, method: str):
    size = detector.config.input_size

    @jax.jit
    def transform(variables):
        # Only the transforms are computed: nothing else is requested.
        images = jnp.zeros((1, size, size, 3))
        _, changed = detector.apply(variables, images, method=method, mutable=[TRANSFORMED])
        return changed.get(TRANSFORMED, {})

    return transform
