"""Bilinear upsampling and Gaussian smoothing as small matrices: both are separable and linear."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from imvad_jax.ops.collectives import device_number
from imvad_jax.ops.rows import Indivisible, count, gather, own_rows
from imvad_jax.ops.sums import total


def bilinear_neighbors(
    n_in: int, n_out: int, align_corners: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two samples `[n_out]` that 1-D linear interpolation takes, and the second one's weight.

    `align_corners=False` has half-pixel centres and clamps at the edge (torch `F.interpolate`,
    `jax.image.resize` when enlarging); `True` maps the first and last samples onto each other.
    """
    out = np.arange(n_out, dtype=np.float64)
    if align_corners:
        source = out * ((n_in - 1) / max(n_out - 1, 1))
    else:
        source = (out + 0.5) * (n_in / n_out) - 0.5
    source = np.clip(source, 0, n_in - 1)
    low = np.floor(source).astype(int)
    return low, np.minimum(low + 1, n_in - 1), source - low


def bilinear_matrix(n_in: int, n_out: int, align_corners: bool = False) -> np.ndarray:
    """Weights `[n_out, n_in]` of 1-D linear interpolation without antialiasing.

    `align_corners` as of `bilinear_neighbors`.
    """
    low, high, share = bilinear_neighbors(n_in, n_out, align_corners)
    matrix = np.zeros((n_out, n_in))
    np.add.at(matrix, (np.arange(n_out), low), 1 - share)
    np.add.at(matrix, (np.arange(n_out), high), share)
    return matrix


def gaussian_matrix(n: int, sigma: float, truncate: float = 4.0) -> np.ndarray:
    """Weights `[n, n]` of a 1-D Gaussian filter with the edge sample repeated.

    Equals `scipy.ndimage.gaussian_filter1d(..., mode="reflect")`: radius
    `int(truncate * sigma + 0.5)`, weights normalised, border `d c b a | a b c d | d c b a`.
    """
    if sigma <= 0:
        return np.eye(n)
    radius = int(truncate * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    position = (np.arange(n)[:, None] + offsets[None]) % (2 * n)
    position = np.where(position >= n, 2 * n - 1 - position, position)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], position), weights[None])
    return matrix


def upsample_and_smooth(
    maps: Array, size: Sequence[int], sigma: float = 4.0, align_corners: bool = False
) -> Array:
    """Enlarges maps `[B, h, w]` to `[B, H, W]` bilinearly, then smooths them with a Gaussian.

    One matrix per axis performs both steps exactly. Source: the common post-processing of SPADE,
    PaDiM and PatchCore (sigma 4, 33 taps, symmetric border).
    """

    maps = jnp.asarray(maps)

    def axis(n_in: int, n_out: int) -> Array:
        matrix = gaussian_matrix(n_out, sigma) @ bilinear_matrix(n_in, n_out, align_corners)
        return jnp.asarray(matrix.astype(maps.dtype))

    rows, columns = axis(maps.shape[1], size[0]), axis(maps.shape[2], size[1])
    return jnp.einsum("Hh,bhw,Ww->bHW", rows, maps, columns, precision=lax.Precision.HIGHEST)


def resize_bilinear(images: Array, size: Sequence[int], align_corners: bool = False) -> Array:
    """Resizes `[B, h, w, C]` to `[B, H, W, C]` bilinearly, without antialiasing.

    Of split rows both heights are those of this device.
    """
    if not align_corners and images.shape[1:3] == tuple(2 * side for side in size):
        pairs = images[:, ::2] + images[:, 1::2]  # sums fuse, where products with matrices do not
        return (pairs[:, :, ::2] + pairs[:, :, 1::2]) / 4
    images = gather(images)
    rows = bilinear_matrix(images.shape[1], size[0] * count(), align_corners)
    rows = own_rows(jnp.asarray(rows, images.dtype))
    columns = jnp.asarray(bilinear_matrix(images.shape[2], size[1], align_corners), images.dtype)
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    batch, height, width, channels = images.shape
    if channels < width:
        return product("Hh,bhwc,Ww->bHWc", rows, images, columns)
    # One product per row, then one per image, so that channels stay last; a single one has them
    # first, and then transposes the maps. The repeated matrices are no larger than the results.
    columns = jnp.broadcast_to(columns, (batch, height, *columns.shape))
    wider = product("bhWw,bhwc->bhWc", columns, images)
    return product("bHh,bhWc->bHWc", jnp.broadcast_to(rows, (batch, *rows.shape)), wider)


def resize_leading(maps: Array, size: Sequence[int]) -> Array:
    """As `resize_bilinear` of one map `[h, w, C]`, for very many channels: `[H, W, C]`.

    Each value is put together from its neighbours, which fuses with what follows on processors; a
    product with a matrix does not. Of split rows both heights are those of this device, but for a
    row of the neighbours on either side of `maps`, `[h + 2, w, C]`.
    """
    for axis, side in enumerate(size):
        if axis == 0 and count() > 1:
            own = maps.shape[0] - 2
            found = bilinear_neighbors(own * count(), side * count())
            low, high, share = (own_rows(jnp.asarray(part)) for part in found)
            low, high = (n - device_number() * own + 1 for n in (low, high))
        else:
            low, high, share = bilinear_neighbors(maps.shape[axis], side)
        share = jnp.asarray(share, maps.dtype).reshape(-1, *[1] * (2 - axis))
        before, after = (jnp.take(maps, n, axis=axis, mode="clip") for n in (low, high))
        maps = before * (1 - share) + after * share
    return maps


def resize_nearest(images: Array, size: Sequence[int]) -> Array:
    """Resizes `[B, h, w, C]` to `[B, H, W, C]`: output i takes input `floor(i * h / H)` (torch).

    Of split rows both heights are those of this device.
    """
    if count() > 1 and size[0] % images.shape[1]:
        raise Indivisible(f"{images.shape[1]} rows per device, of which {size[0]} are made")
    rows = np.arange(size[0]) * images.shape[1] // size[0]
    columns = np.arange(size[1]) * images.shape[2] // size[1]
    return images[:, rows][:, :, columns]


@jax.custom_vjp
def double_size(images: Array) -> Array:
    """Doubles `[B, h, w, C]` bilinearly with `align_corners`: first and last samples stay.

    As `resize_bilinear(images, (2 h, 2 w), align_corners=True)`, without its matrices: output 2 k
    lies between inputs k - 1 and k, output 2 k + 1 between k and k + 1. Reverse mode only.
    """
    for axis in (1, 2):
        n = images.shape[axis]
        x = jnp.moveaxis(images, axis, 1)
        k = np.arange(n).reshape(-1, *[1] * (images.ndim - 2))
        before = jnp.asarray(k / (2 * n - 1), images.dtype)
        after = jnp.asarray((n - 1 - k) / (2 * n - 1), images.dtype)
        # The neighbours repeated beyond the border have weight zero.
        previous = jnp.concatenate([x[:, :1], x[:, :-1]], 1)
        following = jnp.concatenate([x[:, 1:], x[:, -1:]], 1)
        even, odd = x + before * (previous - x), x + after * (following - x)
        x = jnp.stack([even, odd], 2).reshape(x.shape[0], 2 * n, *x.shape[2:])
        images = jnp.moveaxis(x, 1, axis)
    return images


def _double_forward(images):
    return double_size(images), None


def _double_backward(_, gradient):
    # One sum of four slices per axis: JAX's own gradient is many sums of padded slices.
    for axis in (2, 1):
        n = gradient.shape[axis] // 2
        border = [(int(a == axis),) * 2 for a in range(gradient.ndim)]
        padded = jnp.pad(gradient, border)
        weights = np.pad(bilinear_matrix(n, 2 * n, align_corners=True), ((1, 1), (0, 0)))
        gradient = total(
            jnp.asarray(
                weights[np.arange(n) * 2 + tap, np.arange(n)].reshape(-1, *[1] * (3 - axis)),
                padded.dtype,
            )
            * lax.slice_in_dim(padded, tap, tap + 2 * n - 1, 2, axis)
            for tap in range(4)  # of input k: the outputs 2 k - 1 to 2 k + 2
        )
    return (gradient,)


double_size.defvjp(_double_forward, _double_backward)
