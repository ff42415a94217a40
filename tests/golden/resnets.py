"""Our variables of ResNets and blocks with PyTorch's names, made by the recipe."""

import numpy as np
from flax import traverse_util

from imvad_jax import backbones
from imvad_jax.backbones import layout
from tests.golden.files import recipe


def variables(spec_name: str, outputs, prefix: str = "") -> dict:
    """The collections of a backbone; `prefix` is the recipe's."""
    spec = backbones.get(spec_name)
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(spec.variables_template(outputs)).items():
        name = layout.timm_name(path[1:])
        tensors[name] = recipe(name, layout.torch_shape(path, leaf.shape), prefix)
    return spec.from_timm(tensors, outputs)


def by_torch_name(collection: dict) -> dict[str, np.ndarray]:
    """The arrays of a ResNet's collection (or of its gradient) in PyTorch's names and layouts."""
    found = {}
    for path, leaf in traverse_util.flatten_dict(collection).items():
        leaf = np.asarray(leaf)
        if path[-1] == "kernel":
            leaf = leaf.transpose({4: (3, 2, 0, 1), 2: (1, 0)}[leaf.ndim])
        found[layout.timm_name(path)] = leaf
    return found


def norms(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """The Euclidean norms of arrays."""
    return {name: np.linalg.norm(np.asarray(x, np.float64)) for name, x in arrays.items()}
