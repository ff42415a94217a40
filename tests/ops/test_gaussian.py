"""Streaming Gaussians against numpy in float64 and scipy's Mahalanobis distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from imvad_jax.ops import gaussian


def stream(features, batch):
    moments = gaussian.empty_moments(*features.shape[1:])
    for start in range(0, len(features), batch):
        part = features[start : start + batch]
        valid = np.arange(batch) < len(part)
        padding = np.full((batch - len(part), *part.shape[1:]), np.nan, np.float32)
        moments = gaussian.update_moments(
            moments, jnp.asarray(np.concatenate([part, padding])), jnp.asarray(valid)
        )
    return moments


def samples(n=50, positions=6, dim=5, offset=100.0):
    # A large common offset: float32 sums of squares would lose the covariance.
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(positions, dim, dim))
    return (np.einsum("npd,pde->npe", rng.normal(size=(n, positions, dim)), mixing)
            + offset).astype(np.float32)  # fmt: skip


def test_moments_equal_numpy_with_a_padded_last_batch():
    features = samples()
    moments = stream(features, 16)
    assert float(moments.count) == 50
    for position in range(features.shape[1]):
        values = features[:, position].astype(np.float64)
        np.testing.assert_allclose(moments.mean[position], values.mean(0), rtol=1e-6)
        expected = np.cov(values.T) * 49
        np.testing.assert_allclose(moments.scatter[position], expected, rtol=1e-3, atol=1e-2)


def test_merging_parts_equals_one_stream():
    features = samples()
    whole = stream(features, 10)
    parts = [stream(features[:20], 10), stream(features[20:20], 10), stream(features[20:], 10)]
    merged = gaussian.merge_all(parts)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("batch, images", [(16, 50), (20, 150), (80, 90)])
def test_gathered_samples_give_the_same_moments(batch, images):
    features = samples(images, positions=3)
    pending = gaussian.empty_pending(3, 5, images)
    add = jax.jit(gaussian.add_pending, donate_argnums=0)
    for start in range(0, images, batch):
        part = features[start : start + batch]
        padding = np.full((batch - len(part), *part.shape[1:]), np.nan, np.float32)
        pending = add(pending, np.concatenate([part, padding]), np.arange(batch) < len(part))
    found, expected = gaussian.flush(pending).moments, stream(features, images)
    assert float(found.count) == images
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-6)
    np.testing.assert_allclose(found.scatter, expected.scatter, rtol=1e-4, atol=1e-2)


def test_half_precision_counts_every_sample():
    # bfloat16 holds no 257: a batch larger than what is pending, and many that are smaller.
    features = jnp.asarray(samples(300, positions=2, offset=0.0), jnp.bfloat16)
    whole = stream(np.asarray(features, np.float32), 300)
    for batch in (300, 30):
        pending = gaussian.empty_pending(2, 5, 300)
        for start in range(0, 300, batch):
            part = features[start : start + batch]
            pending = gaussian.add_pending(pending, part, np.ones(len(part), bool))
        found = gaussian.flush(pending).moments
        assert found.mean.dtype == jnp.float32 and float(found.count) == 300
        np.testing.assert_allclose(found.scatter, whole.scatter, rtol=1e-3, atol=1e-2)


def test_distance_equals_scipy_also_for_more_positions_than_a_block():
    features = samples(n=40, positions=gaussian.BLOCK + 3, dim=4, offset=0.0)
    moments = stream(features, 20)
    scatter = np.array(moments.scatter)
    whitening = gaussian.whitening(moments.scatter, moments.count, 0.01)
    test = samples(n=3, positions=gaussian.BLOCK + 3, dim=4, offset=0.5)
    distances = gaussian.mahalanobis(jnp.asarray(test), moments.mean, whitening)
    for position in (0, gaussian.BLOCK - 1, gaussian.BLOCK + 2):
        inverse = np.linalg.inv(scatter[position].astype(np.float64) / 39 + 0.01 * np.eye(4))
        expected = [mahalanobis(x[position], moments.mean[position], inverse) for x in test]
        np.testing.assert_allclose(distances[:, position], expected, rtol=1e-3)


def test_one_sample_leaves_the_regularisation():
    moments = stream(samples(n=1), 1)
    whitening = gaussian.whitening(moments.scatter, moments.count, 0.01)
    np.testing.assert_allclose(whitening[0], np.eye(5) * 10, rtol=1e-5)


def distances_of(test, mean, whitening):
    return gaussian.mahalanobis(jnp.asarray(test)[:, None], mean[None], whitening[None])[:, 0]


def test_shrunk_gaussian_is_scikit_learns_with_fewer_and_more_samples_than_dims():
    rng = np.random.default_rng(0)
    for count, dim in ((15, 40), (200, 12), (3, 5)):
        mixing = rng.normal(size=(dim, dim))
        rows = (rng.normal(size=(count + 5, dim)) @ mixing + 3).astype(np.float32)
        model = LedoitWolf().fit(rows[:count].astype(np.float64))
        mean, whitening = gaussian.shrunk_gaussian(rows[:count])
        assert mean.dtype == whitening.dtype == np.float32
        expected = np.sqrt(model.mahalanobis(rows.astype(np.float64)))
        np.testing.assert_allclose(distances_of(rows, mean, whitening), expected, rtol=1e-4)


def test_shrunk_gaussian_of_samples_that_do_not_vary_measures_the_plain_distance():
    for rows in (np.ones((1, 4)), np.ones((7, 4))):
        mean, whitening = gaussian.shrunk_gaussian(rows)
        found = distances_of(np.array([[1, 1, 1, 1], [2, 1, 1, 1]], np.float32), mean, whitening)
        np.testing.assert_allclose(found, [0, gaussian.TINY**-0.5], rtol=1e-5)
