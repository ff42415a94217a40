"""From timm's tensors to flax variables: names, layouts, and the checks on what a file holds.

The modules name their submodules so that one rule gives timm's name: a `_<number>` becomes
`.<number>`. `params/layer1_0/conv1/kernel` is `layer1.0.conv1.weight`, and
`batch_stats/blocks_0_0/bn1/mean` is `blocks.0.0.bn1.running_mean`. A parameter that belongs to no
layer, such as a transformer's `pos_embed`, has timm's name and shape as it is.
"""

import re
import zlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from imvad_jax.backbones.prefixes import nearest
from imvad_jax.backbones.wording import shape_text, shown
from imvad_jax.errors import UserError

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# PyTorch stores OIHW and [out, in]; flax wants HWIO and [in, out]. A depthwise [C, 1, h, w]
# becomes [h, w, 1, C] by the same transposition.
_TO_FLAX = {4: (2, 3, 1, 0), 2: (1, 0)}
_TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}


class MissingTensorError(UserError):
    """The file holds fewer layers than are in use."""


def timm_name(path: tuple[str, ...]) -> str:
    """Returns timm's name of the variable at `path` (without the collection)."""
    *modules, leaf = path
    dotted = [re.sub(r"_(\d+)(?=_|$)", r".\1", module) for module in modules]
    return ".".join([*dotted, _LEAVES.get(leaf, leaf)])


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape in which PyTorch stores a variable of flax shape `shape`."""
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)]) if path[-1] == "kernel" else shape


def variables_from_timm(
    template: Mapping[str, Any],
    tensors: Mapping[str, Any],
    keys: Mapping[str, str],
    source: str,
) -> dict[str, Any]:
    """Returns numpy float32 variables of the structure of `template`.

    `keys` maps timm's name to the key of `tensors`. Raises UserError as
    `BackboneSpec.from_timm` says.
    """
    variables = {}
    for path, leaf in _leaves(template).items():
        name = timm_name(path[1:])
        if name not in keys:
            raise _missing(name, tensors, keys, source)
        found = tensors[keys[name]]
        what = f"{source}: tensor '{shown(keys[name])}'"
        expected = torch_shape(path, leaf.shape)
        # Before anything of it is read: a file may claim any size.
        if tuple(found.shape) != expected:
            raise UserError(
                f"{what} has shape {shape_text(found.shape)}, expected {expected}; the file holds "
                "another architecture"
            )
        variables[path] = _checked(found, path, what)
    return traverse_util.unflatten_dict(variables)


def _missing(
    name: str, tensors: Mapping[str, Any], keys: Mapping[str, str], source: str
) -> UserError:
    near = nearest(name, tensors)
    if near is not None:
        prefix = shown(near.removesuffix(name))
        return UserError(
            f"{source}: tensor '{name}' is missing, the file has '{shown(near)}'; save the tensors "
            f"without '{prefix}' before their names"
        )
    return MissingTensorError(
        f"{source}: tensor '{name}' is missing ({len(keys)} others are there); take a "
        "file of the whole network, the --backbone that this file is of, or --layers that "
        "need less of it"
    )


def _checked(found: Any, path: tuple[str, ...], what: str) -> np.ndarray:
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise UserError(
            f"{what} is {shown(str(found.dtype))}, expected floating point; quantised weights are "
            "not read"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # inf and NaN are refused below
        values = np.asarray(found).astype(np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{what} holds NaN or infinity; the file is damaged, fetch it again")
    if path[-1] == "var" and (values < 0).any():
        raise UserError(f"{what} holds a negative variance; the file is damaged, fetch it again")
    if path[-1] == "kernel":
        values = values.transpose(_TO_FLAX[values.ndim])
    return np.ascontiguousarray(values)


def _leaves(template: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return traverse_util.flatten_dict(template)


def random_variables(template: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns seeded He-normal kernels (He et al. 2015, eq. 10), scale 1, bias 0, mean 0, var 1.

    Parameters of no layer (tokens, positions) are normal with deviation .02, as transformers start.
    Each array has its own generator, so a tap's features do not depend on what else is asked.
    """
    variables = {}
    for path, leaf in _leaves(template).items():
        if path[-1] == "kernel" or path[-1] not in _LEAVES:
            kernel = path[-1] == "kernel"
            rng = np.random.default_rng([seed, zlib.crc32(timm_name(path[1:]).encode())])
            deviation = np.sqrt(2.0 / np.prod(leaf.shape[:-1])) if kernel else 0.02
            values = rng.standard_normal(leaf.shape, dtype=np.float32) * np.float32(deviation)
        else:
            values = np.full(leaf.shape, path[-1] in ("scale", "var"), np.float32)
        variables[path] = values
    return traverse_util.unflatten_dict(variables)
