"""Kernels of networks that no training changes, made ready for use once."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from imvad_jax import backbones
from imvad_jax.layers.conv import OUTPUTS, TRANSFORMED
from imvad_jax.methods.base import Detector, tree_bytes
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
    found = jax.eval_shape(_transform(detector, "features", False), {"backbone": template})
    return tree_bytes(found)


def shared_outputs(detector: Detector, variables: dict, parallel: Parallel, method: str) -> dict:
    """Kernels of the convolutions whose outputs are shared by devices that share an image's rows.

    A tree like the variables, for `merged`: each device holds `[36 or 64, D / devices, C]` of a
    kernel. It is empty where there are none; kernels whose outputs the devices do not divide are
    not in it.

    Args:
      method: What of the detector is split by rows, `__call__` or `features`.
    """
    if not _uses_transforms(detector, parallel):
        return {}
    count = parallel.count
    found = flatten_dict(_transform(detector.compile_key(), method, True)(variables))
    parts = {}
    for path, leaf in found.items():
        kernel = np.asarray(leaf)
        points, outputs, inputs = kernel.shape
        if outputs % count == 0:
            split = kernel.reshape(points, count, -1, inputs).swapaxes(0, 1)
            parts[TRANSFORMED, *path] = parallel.shard(split.reshape(points * count, -1, inputs))
    return unflatten_dict(parts)


def merged(variables: Mapping, parts: Mapping) -> dict:
    """The variables with further leaves, such as those that are split over the devices."""
    return unflatten_dict(flatten_dict(variables, keep_empty_nodes=True) | flatten_dict(parts))


def _uses_transforms(detector: Detector, parallel: Parallel) -> bool:
    return parallel.local[0].platform == "cpu" and detector.config.convolution != "xla"


def _with(detector: Detector, variables: dict, parallel: Parallel, method: str) -> dict:
    if not _uses_transforms(detector, parallel):
        return variables
    found = _transform(detector.compile_key(), method, False)(variables)
    return variables | {TRANSFORMED: found} if found else variables


@functools.lru_cache(maxsize=64)
def _transform(detector: Detector, method: str, shared: bool):
    """What makes the collection `transformed`: its kernels for `shared_outputs`, or all else."""
    size = detector.config.input_size

    @jax.jit
    def transform(variables):
        # Only the transforms are computed: nothing else is requested.
        images = jnp.zeros((1, size, size, 3))
        _, changed = detector.apply(variables, images, method=method, mutable=[TRANSFORMED])
        found = flatten_dict(changed.get(TRANSFORMED, {}))
        wanted = {path: leaf for path, leaf in found.items() if (path[-1] == OUTPUTS) == shared}
        return unflatten_dict(wanted)

    return transform
