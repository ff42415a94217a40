"""One multivariate Gaussian per position: streaming moments, whitening, Mahalanobis distance."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array, lax
from threadpoolctl import threadpool_limits

HIGHEST = lax.Precision.HIGHEST
RIDGE = 1e-6  # of the mean variance, on the diagonal: two samples alone are not shrunk at all
TINY = 1e-12  # the variance of what does not vary
BLOCK = 256  # positions factorised at a time: bounds the workspace for large dimensions


class Moments(NamedTuple):
    """Running moments of `[P]` positions in `[D]` dimensions (Chan et al., 1979)."""

    count: Array  # []
    mean: Array  # [P, D]
    scatter: Array  # [P, D, D], the sum of (x - mean)(x - mean)^T


def empty_moments(positions: int, dim: int, dtype=jnp.float32) -> Moments:
    """Moments of no sample at all."""
    return Moments(
        jnp.zeros((), dtype),
        jnp.zeros((positions, dim), dtype),
        jnp.zeros((positions, dim, dim), dtype),
    )


def update_moments(moments: Moments, features: Array, valid: Array) -> Moments:
    """Adds a batch `[B, P, D]`; samples where `valid` `[B]` is False are left out.

    Centred on the batch mean, so nothing cancels in float32; the shift between the two means is
    one more row of the same matrix product.
    """
    weight = valid.astype(features.dtype)
    added = weight.sum()
    features = jnp.where(valid[:, None, None], features, 0)
    mean = features.sum(0) / jnp.maximum(added, 1)
    total = moments.count + added
    shift = mean - moments.mean
    centred = (features - mean) * weight[:, None, None]
    between = jnp.sqrt(moments.count * added / jnp.maximum(total, 1))
    rows = jnp.concatenate([centred, (between * shift)[None]])
    rows = rows.transpose(1, 2, 0)
    scatter = moments.scatter + jnp.einsum("pdb,peb->pde", rows, rows, precision=HIGHEST)
    return Moments(total, moments.mean + shift * (added / jnp.maximum(total, 1)), scatter)


@partial(jax.jit, donate_argnums=0)
def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the union of two sets of samples."""
    total = a.count + b.count
    shift = b.mean - a.mean
    between = a.count * b.count / jnp.maximum(total, 1)
    scatter = a.scatter + b.scatter + between * shift[:, :, None] * shift[:, None, :]
    return Moments(total, a.mean + shift * (b.count / jnp.maximum(total, 1)), scatter)


def merge_all(parts: Sequence[Moments]) -> Moments:
    """Moments of all samples, from one accumulator a device, on the first device. Donates them."""
    merged = jax.tree.map(jnp.asarray, parts[0])
    for part in parts[1:]:
        merged = merge_moments(merged, jax.device_put(part, merged.mean.sharding))
    return merged


def whitening(scatter: Array, count: Array, regularization: float) -> Array:
    """Inverse Cholesky factor `W` `[P, D, D]` of `scatter / (count - 1) + regularization * I`.

    `W W^T`-whitening: `|W (x - mean)|` is the Mahalanobis distance, so scoring is a matrix product
    and holds no LAPACK call. With one sample the covariance is undefined; the regularisation
    alone stands then. Positions are worked off in blocks, in place of the donated scatter. Waits.
    """
    # One BLAS thread: on small matrices OpenBLAS's threads wait for each other, and on a busy
    # machine thousands of such waits took 60 s instead of 0.3.
    with threadpool_limits(1, user_api="blas"):
        return _whitening(scatter, count, regularization).block_until_ready()


@partial(jax.jit, donate_argnums=0)
def _whitening(scatter: Array, count: Array, regularization: float) -> Array:
    positions, dim, _ = scatter.shape
    block = min(BLOCK, positions)
    eye = jnp.eye(dim, dtype=scatter.dtype)

    def invert(block_scatter: Array) -> Array:
        covariance = block_scatter / jnp.maximum(count - 1, 1) + regularization * eye
        factor = jnp.linalg.cholesky(covariance)
        return jax.scipy.linalg.solve_triangular(
            factor, jnp.broadcast_to(eye, factor.shape), lower=True
        )

    def step(i, buffer):
        return lax.dynamic_update_slice_in_dim(
            buffer, invert(lax.dynamic_slice_in_dim(buffer, i * block, block)), i * block, 0
        )

    whole = positions // block
    scatter = lax.fori_loop(0, whole, step, scatter)
    if positions % block:
        # Not a sliding last block: the buffer is replaced in place and must be read only once.
        rest = invert(scatter[whole * block :])
        scatter = lax.dynamic_update_slice_in_dim(scatter, rest, whole * block, 0)
    return scatter


def shrunk_gaussian(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[D]` and inverse Cholesky factor `[D, D]` of the shrunk covariance of samples `[N, D]`.

    For fewer samples than dimensions. The shrinkage towards a multiple of the identity is that of
    Ledoit and Wolf (Journal of Multivariate Analysis 88, 2004), lemma 3.3, with the covariance
    divided by N. Samples that do not vary get the covariance `TINY * I`. On the host, in float64;
    returns float32.
    """
    samples = np.asarray(samples, np.float64)
    count, dim = samples.shape
    mean = samples.mean(0)
    centred = samples - mean
    covariance = centred.T @ centred / count
    variance = np.trace(covariance) / dim
    norm = np.sum(covariance**2)
    spread = norm - dim * variance**2  # of the covariance around its multiple of the identity
    noise = (np.mean(np.sum(centred**2, 1) ** 2) - norm) / count  # of its estimate
    shrinkage = min(noise, spread) / spread if spread > 0 else 0.0
    floor = shrinkage * variance + RIDGE * variance + TINY
    covariance = (1 - shrinkage) * covariance + floor * np.eye(dim)
    factor = np.linalg.cholesky(covariance)
    whitener = scipy.linalg.solve_triangular(factor, np.eye(dim), lower=True)
    return mean.astype(np.float32), whitener.astype(np.float32)


def mahalanobis(features: Array, mean: Array, whitener: Array) -> Array:
    """Mahalanobis distances `[B, P]` of features `[B, P, D]` (mean `[P, D]`, `[P, D, D]`)."""
    centred = (features - mean).transpose(1, 2, 0)
    white = jnp.einsum("pde,peb->pdb", whitener, centred, precision=HIGHEST)
    return jnp.sqrt(jnp.sum(white * white, 1)).T
