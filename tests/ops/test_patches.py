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


def averaged(features):  # [B, H, W, C]: each channel over 3 x 3, zeros beyond the border counted
    return unfold(features).reshape(*features.shape, 9).mean(-1)


@pytest.mark.parametrize("channels", [(16, 32), (8, 64), (32, 128)])
def test_averages_have_the_distances_of_the_official_pools_behind_a_local_average(channels):
    """Channels that those pools would repeat are scaled instead: as far apart, in fewer values."""
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(1, 5, 4, c)) for c in channels]
    pooled = np.concatenate([adaptive_pool(averaged(m), 64) for m in maps], -1)
    expected = adaptive_pool(pooled, 64).reshape(20, 64)
    kernels = patches.average_kernels(channels, 64)
    found = [
        patches.aggregate_patches(jnp.asarray(m, jnp.float32), k) for m, k in zip(maps, kernels)
    ]
    found = np.concatenate(found, -1).reshape(20, -1)
    assert found.shape[1] == sum(min(count, 32) for count in channels)
    distances = [((x[:, None] - x[None]) ** 2).sum(-1) for x in (found, expected)]
    np.testing.assert_allclose(*distances, atol=1e-4)
    if max(channels) > 32:
        own = slice(min(channels[0], 32), None)  # the share of the larger layer, not repeated
        np.testing.assert_allclose(found[:, own], expected[:, 32:], atol=1e-5)


def test_the_average_of_a_layer_of_as_many_channels_as_the_dim_is_the_official_one():
    _, official = patches.patch_kernels((512, 1024), 1024)
    _, average = patches.average_kernels((512, 1024), 1024)
    np.testing.assert_allclose(average, official, atol=1e-12)


@pytest.mark.parametrize("kernels", patches.AGGREGATIONS.values())
def test_dim_must_divide(kernels):
    with pytest.raises(ValueError, match="1023"):
        kernels((128, 256), 1023)
