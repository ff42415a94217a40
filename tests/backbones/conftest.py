"""What the backbone tests share: the shared folder, and weights made by the golden recipe."""

from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util

from imvad_jax.backbones import layout
from tests.golden.files import recipe as recipe_value
from tests.golden.files import shared_root

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden features; skips the test where there is none."""
    path = shared_root()
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set IMVAD_SHARED)")
    return path


def _recipe(spec, outputs):
    """timm's tensors of the reference recipe: seeded by the CRC-32 of their names."""
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(spec.variables_template(outputs)).items():
        name = layout.timm_name(path[1:])
        shape = layout.torch_shape(path, leaf.shape)
        tensors[name] = recipe_value(name, shape)
    return tensors


@pytest.fixture(scope="session")
def recipe():
    """recipe(spec, outputs) -> tensors by timm's names, in PyTorch's layouts."""
    return _recipe


@pytest.fixture(scope="session")
def golden(shared):
    """golden(name) -> (images [B, H, W, 3], {output: features [B, H, W, C] or [B, C]}).

    The reference fed its input unnormalised, so the images here undo the normalisation.
    """

    def load(name, seed=0, shape=(2, 3, 96, 96), statistics=IMAGENET):
        x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        mean, std = (np.array(values) for values in statistics)
        images = (x.transpose(0, 2, 3, 1) * std + mean).astype(np.float32)
        file = shared / "reference" / "parity" / f"{name}.npz"
        if not file.is_file():
            pytest.skip(f"no golden features at {file}")
        with np.load(file) as features:
            return images, {key: np.moveaxis(features[key], 1, -1) for key in features.files}

    return load
