"""Structural similarity against scikit-image and against sums over windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from imvad_jax.ops import ssim
from imvad_jax.ops.collectives import AXIS


def pair(seed=0, shape=(2, 24, 29, 3)):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, shape)
    return x, np.clip(x + rng.normal(0, 0.2, shape), 0, 1)


def window_by_window(x, y, value_range):
    """Equation 13 for one channel `[H, W]`, pixel by pixel, zeros around."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    a, b = np.pad(x, 5), np.pad(y, 5)
    out = np.zeros_like(x)
    for i, j in np.ndindex(*x.shape):
        p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
        mp, mq = (weights * p).sum(), (weights * q).sum()
        vp = (weights * p**2).sum() - mp**2
        vq = (weights * q**2).sum() - mq**2
        cov = (weights * p * q).sum() - mp * mq
        out[i, j] = ((2 * mp * mq + c1) * (2 * cov + c2)) / ((mp**2 + mq**2 + c1) * (vp + vq + c2))
    return out


@pytest.mark.parametrize("value_range", [1.0, 2.0])
def test_away_from_the_border_it_is_scikit_images(value_range):
    x, y = pair()
    found = ssim.ssim_map(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), value_range)
    for one, a, b in zip(found, x, y):
        _, expected = structural_similarity(
            a, b, data_range=value_range, channel_axis=-1, full=True,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert expected[5:-5, 5:-5].std() > 0.05
        np.testing.assert_allclose(one[5:-5, 5:-5], expected[5:-5, 5:-5], atol=2e-5)


def test_at_the_border_zeros_count():
    x, y = pair(1, (1, 13, 12, 2))
    found = ssim.ssim_map(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), 1.0)
    for c in range(2):
        expected = window_by_window(x[0, ..., c], y[0, ..., c], 1.0)
        np.testing.assert_allclose(found[0, ..., c], expected, atol=2e-5)


def test_equal_images_are_similar_by_one_and_the_gradient_there_is_zero():
    x = jnp.asarray(pair()[0], jnp.float32)
    np.testing.assert_allclose(ssim.ssim_map(x, x, 1.0), 1, atol=1e-6)
    slope = jax.grad(lambda a: ssim.ssim_map(a, x, 1.0).mean())(x)
    other = jax.grad(lambda a: ssim.ssim_map(a, 1 - x, 1.0).mean())(x)
    assert np.abs(slope).max() < 1e-3 * np.abs(other).max()


@pytest.mark.parametrize(
    "low, high, expected", [(0, 1, 1), (-0.4, 127, 1), (-0.6, 1, 2), (0, 129, 255), (-1, 200, 256)]
)
def test_range_by_the_rule_of_the_official_code(low, high, expected):
    x = jnp.zeros((2, 3, 3, 1)).at[0, 0, 0, 0].set(low).at[1, 2, 2, 0].set(high)
    assert float(ssim.dynamic_range(x)) == expected


def test_devices_that_share_a_batch_agree_on_the_range():
    x = jnp.zeros((4, 1, 3, 3, 1)).at[2, 0, 1, 1, 0].set(-1.0)  # one device of four sees it
    found = jax.pmap(ssim.dynamic_range, axis_name=AXIS)(x)
    np.testing.assert_array_equal(found, np.full(4, 2.0))


def test_the_range_is_read_from_the_first_image():
    x, y = (jnp.asarray(v, jnp.float32) for v in pair())
    np.testing.assert_array_equal(ssim.ssim_map(x - 1, y), ssim.ssim_map(x - 1, y, 2.0))
    assert np.abs(ssim.ssim_map(y, x - 1) - ssim.ssim_map(y, x - 1, 2.0)).max() > 1e-3
