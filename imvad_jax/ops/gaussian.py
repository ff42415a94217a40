"""One multivariate Gaussian per position: streaming moments, whitening, Mahalanobis distance."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax import Array, lax
from threadpoolctl import threadpool_limits

HIGHEST = lax.Precision.HIGHEST
RIDGE = 1e-6  # of the mean variance, on the diagonal: two samples alone are not shrunk at all
TINY = 1e-12  # the variance of what does not vary
PENDING = 64  # samples of a device that are added to its moments at a time
BLOCK = 256  # positions worked on at a time: bounds the workspace, and keeps it in the cache


class Moments(NamedTuple):
    """Running moments of `[P]` positions in `[D]` dimensions (Chan et al., 1979)."""

    # []
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    mean: Array  # [P, D]
    scatter: Array  # [P, D, D], the sum of (x - mean)(x - mean)^T


def empty_moments(positions: int, dim: int, dtype=jnp.float32) -> Moments:
    """Returns the moments of zero samples."""
    return Moments(
        jnp.zeros((), dtype),
        jnp.zeros((positions, dim), dtype),
        jnp.zeros((positions, dim, dim), dtype),
    )


def update_moments(moments: Moments, features: Array, valid: Array) -> Moments:
    """Adds a batch `[B, P, D]`; samples where `valid` `[B]` is False are left out."""
    return _add_rows(moments, features.transpose(1, 0, 2), valid)


def _add_rows(moments: Moments, rows: Array, valid: Array) -> Moments:
    """Adds rows `[P, K, D]`. Centred on their own mean, so nothing cancels in float32."""
    added = valid.sum().astype(rows.dtype)
    total = moments.count + added
    share, between = added / jnp.maximum(total, 1), moments.count * added / jnp.maximum(total, 1)
    chosen = valid[None, :, None]

    def add(old: tuple[Array, Array], rows: Array) -> tuple[Array, Array]:
        mean, scatter = old
        centre = jnp.where(chosen, rows, 0).sum(1) / jnp.maximum(added, 1)
        centred = jnp.where(chosen, rows - centre[:, None], 0)
        shift = centre - mean
        product = jnp.einsum("pkd,pke->pde", centred, centred, precision=HIGHEST)
        return (
            mean + shift * share,
            scatter + product + between * shift[:, :, None] * shift[:, None],
        )

    return Moments(total, *_replace_blocks(add, (moments.mean, moments.scatter), rows))


def _replace_blocks(replace: Callable, old: Any, *inputs: Any) -> Any:
    """`replace(old, *inputs)` for `BLOCK` rows of all arrays at a time, in the place of `old`."""
    count = len(jax.tree.leaves(old)[0])
    block = min(BLOCK, count)

    def cut(tree, start, size):
        return jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, size), tree)

    def work(start, size, old):
        new = replace(cut(old, start, size), *cut(inputs, start, size))
        return jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, start, 0), old, new)

    whole = count // block
    old = lax.fori_loop(0, whole, lambda i, old: work(i * block, block, old), old)
    # Not a sliding last block: what is replaced in place must be read only once.
    return work(whole * block, count % block, old) if count % block else old


class PendingMoments(NamedTuple):
    """Moments, and pending samples that will be added to them in bulk.

    The scatter matrices are read and written once for all of them: a product of a few rows takes
    longer to add than to compute.
    """

    moments: Moments
    rows: Array  # [P, K, D]
    valid: Array  # [K] bool
    filled: Array  # [] int32, slots taken


def empty_pending(positions: int, dim: int, capacity: int) -> PendingMoments:
    """Returns empty moments with room for `capacity` pending samples, at most `PENDING`."""
    slots = min(capacity, PENDING)
    return PendingMoments(
        empty_moments(positions, dim),
        jnp.zeros((positions, slots, dim), jnp.float32),
        jnp.zeros(slots, bool),
        jnp.zeros((), jnp.int32),
    )


def add_pending(pending: PendingMoments, features: Array, valid: Array) -> PendingMoments:
    """Adds a batch `[B, P, D]` as `update_moments` does (in place when donated)."""
    slots, count = len(pending.valid), len(valid)
    features = features.astype(pending.rows.dtype)  # half precision would not even count right
    if count > slots:
        return pending._replace(moments=update_moments(pending.moments, features, valid))
    full = pending.filled + count > slots
    # A loop of one round or none works in place; `lax.cond` would copy the moments.
    pending = lax.fori_loop(0, full.astype(jnp.int32), lambda _, g: flush(g), pending)
    start = pending.filled
    return PendingMoments(
        pending.moments,
        lax.dynamic_update_slice_in_dim(pending.rows, features.transpose(1, 0, 2), start, 1),
        lax.dynamic_update_slice_in_dim(pending.valid, valid, start, 0),
        start + count,
    )


def flush(pending: PendingMoments) -> PendingMoments:
    """Adds all pending samples to the moments."""
    return PendingMoments(
        _add_rows(pending.moments, pending.rows, pending.valid),
        pending.rows,
        jnp.zeros_like(pending.valid),
        jnp.zeros_like(pending.filled),
    )


@partial(jax.jit, donate_argnums=0)
def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the union of two sets of samples."""
    total = a.count + b.count
    shift = b.mean - a.mean
    between = a.count * b.count / jnp.maximum(total, 1)
    scatter = a.scatter + b.scatter + between * shift[:, :, None] * shift[:, None, :]
    return Moments(total, a.mean + shift * (b.count / jnp.maximum(total, 1)), scatter)


def merge_all(parts: Sequence[Moments]) -> Moments:
    """Merges the moments of all devices on the first device. Donates the accumulators."""
    merged = jax.tree.map(jnp.asarray, parts[0])
    for part in parts[1:]:
        merged = merge_moments(merged, jax.device_put(part, merged.mean.sharding))
    return merged


def whitening(scatter: Array, count: Array, regularization: float) -> Array:
    """`W` `[P, D, D]`, transposed inverse Cholesky factor of `scatter / (count - 1) + reg * I`.

    `|(x - mean) W|` is the Mahalanobis distance, so scoring is a matrix product and holds no
    LAPACK call. With one sample the covariance is undefined; the regularisation alone stands then.
    Positions are worked off in blocks, in place of the donated scatter. Waits.
    """
    # One BLAS thread: on small matrices OpenBLAS's threads wait for each other, and on a busy
    # machine thousands of such waits took 60 s instead of 0.3.
    with threadpool_limits(1, user_api="blas"):
        return _whitening(scatter, count, regularization).block_until_ready()


@partial(jax.jit, donate_argnums=0)
def _whitening(scatter: Array, count: Array, regularization: float) -> Array:
    eye = jnp.eye(scatter.shape[-1], dtype=scatter.dtype)

    def invert(scatter: Array) -> Array:
        covariance = scatter / jnp.maximum(count - 1, 1) + regularization * eye
        factor = jnp.linalg.cholesky(covariance)
        return jax.scipy.linalg.solve_triangular(
            factor, jnp.broadcast_to(eye, factor.shape), trans=1, lower=True
        )

    return _replace_blocks(invert, scatter)


def shrunk_gaussian(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[D]`, transposed inverse Cholesky factor of the shrunk covariance `[D, D]` of `[N, D]`.

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
    whitening = scipy.linalg.solve_triangular(factor, np.eye(dim), trans=1, lower=True)
    return mean.astype(np.float32), whitening.astype(np.float32)


def mahalanobis(features: Array, mean: Array, whitening: Array) -> Array:
    """Mahalanobis distances `[B, P]` of features `[B, P, D]` (mean `[P, D]`, `[P, D, D]`)."""
    centred = (features - mean).transpose(1, 0, 2)
    # Both factors lie in memory as the product reads them; the other way round it is far slower.
    white = jnp.einsum("pbd,pde->pbe", centred, whitening, precision=HIGHEST)
    return jnp.sqrt(jnp.sum(white * white, 2)).T
