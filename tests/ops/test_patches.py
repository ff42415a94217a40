"""Patch aggregation against the official recipe, written out: unfold, pool, stack, pool."""

import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.ops import patches


def unfold(features):  # [B, H, W, C] -> [B, H, W, C * 9], channel-major, then row, then column
    _, height, width, _ = features.shape
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, r : r + height, c : c + width] for r in range(3) for c in range(3)]
    return np.stack(windows, -1).reshape(*features.shape[:3], -1)


def adaptive_pool(x, n_out):
    n_in = x.shape[-1]
    columns = []
    for i in range(n_out):
        columns.append(x[..., i * n_in // n_out : -(-(i + 1) * n_in // n_out)].mean(-1))
    return np.stack(columns, -1)


@pytest.mark.parametrize("channels", [(128, 256), (512, 1024), (40, 112)])
def test_kernels_equal_the_official_recipe(channels):
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, 5, 4, c)) for c in channels]
    stacked = np.concatenate([adaptive_pool(unfold(m), 1024) for m in maps], -1)
    expected = adaptive_pool(stacked, 1024)
    kernels = patches.patch_kernels(channels, 1024)
    found = [
        patches.aggregate_patches(jnp.asarray(m, jnp.float32), k) for m, k in zip(maps, kernels)
    ]
    np.testing.assert_allclose(np.concatenate(found, -1), expected, atol=1e-5)


def test_closed_form_for_wide_resnet():
    # Sheet: layer2 is smoothed per channel with .1 around .2; layer3 averages pairs of channels.
    layer2, layer3 = patches.patch_kernels((512, 1024), 1024)
    smooth = np.full((3, 3), 0.1)
    smooth[1, 1] = 0.2
    np.testing.assert_allclose(layer2[:, :, 7, 7], smooth)
    np.testing.assert_allclose(layer3[:, :, [6, 7], 3], np.full((3, 3, 2), 1 / 18))
    assert np.count_nonzero(layer2) == 512 * 9 and np.count_nonzero(layer3) == 1024 * 9


def test_dim_must_divide():
    with pytest.raises(ValueError, match="1023"):
        patches.patch_kernels((128, 256), 1023)
