"""Cross-scale coupling against autodiff and its formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.layers import cross_scale

SIDES = (4, 2, 1)


def maps(channels, sides=SIDES, batch=2, seed=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((batch, side, side, channels)) for side in sides]


def permutations(channels):
    rng = np.random.default_rng(2)
    return [rng.permutation(channels) for _ in SIDES]


def start(module, *args):
    """The shapes and types of a module's parameters."""
    return jax.eval_shape(lambda *args: module.init(jax.random.key(0), *args), *args)


def small_block(channels, kernel, sides=SIDES, dtype=jnp.float64):
    """A block, its parameters away from their start (where it only permutes), its input."""
    block = cross_scale.CrossScaleCoupling(hidden=3, kernel_size=kernel, dtype=dtype)
    x = [m.astype(dtype) for m in maps(channels, sides)]
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: (0.4 * rng.standard_normal(p.shape)).astype(dtype),
        start(block, x, permutations(channels)),
    )
    return block, params, x


def test_inverse_undoes_forward():
    with jax.enable_x64(True):
        block, params, x = small_block(5, 5, (3, 2, 1))
        order = permutations(5)
        y, log_det = jax.jit(block.apply)(params, x, order)
        inverse = jax.jit(lambda *args: block.apply(*args, reverse=True))
        found = (y, log_det, *inverse(params, y, order))
    y, log_det, back, inverse_log_det = jax.device_get(found)
    for found, expected, changed in zip(back, x, y):
        assert found.dtype == np.float64
        assert np.abs(changed - expected).max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.abs(log_det).min() > 0.1
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-12)


def test_log_determinant_is_that_of_the_jacobian():
    with jax.enable_x64(True):
        block, params, x = small_block(3, 3)
        order = permutations(3)
        shapes = [m.shape[1:] for m in x]
        ends = np.cumsum([np.prod(shape) for shape in shapes])

        def flat(v):
            parts = jnp.split(v, ends[:-1])
            y, log_det = block.apply(
                params, [p.reshape(1, *s) for p, s in zip(parts, shapes)], order
            )
            return jnp.concatenate([m.ravel() for m in y]), log_det[0]

        jacobian = jax.jit(jax.jacrev(flat, has_aux=True))
        for i in range(2):
            matrix, log_det = jacobian(np.concatenate([m[i].ravel() for m in x]))
            expected = np.linalg.slogdet(np.asarray(matrix))[1]
            assert abs(expected) > 0.1
            np.testing.assert_allclose(log_det, expected, rtol=1e-9)


def test_a_new_block_only_permutes():
    x = [m.astype(np.float32) for m in maps(6)]
    order = permutations(6)
    block = cross_scale.CrossScaleCoupling(hidden=3, kernel_size=3)
    (y, log_det), _ = jax.jit(block.init_with_output)(jax.random.key(0), x, order)
    for found, m, p in zip(y, x, order):
        np.testing.assert_array_equal(found, m[..., p])
    assert len({tuple(p) for p in order}) == 3
    np.testing.assert_array_equal(log_det, 0)


def test_outputs_are_limited():
    block, params, x = small_block(3, 3, dtype=np.float32)
    large = [1e7 * np.sign(m) for m in x]
    zero = jax.tree.map(np.zeros_like, params)
    y, _ = jax.jit(block.apply)(zero, large, permutations(3))
    assert all((np.abs(m) == 1e6).all() for m in y)


def conv(x, layer, stride=1):
    """Correlation of `[H, W, C]` with zero padding, window by window."""
    side = layer["kernel"].shape[0]
    padded = np.pad(x, ((side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    rows, columns = (-(-n // stride) for n in x.shape[:2])
    out = np.zeros((rows, columns, layer["kernel"].shape[-1])) + layer["bias"]
    for i in range(rows):
        for j in range(columns):
            window = padded[i * stride :, j * stride :][:side, :side]
            out[i, j] += np.einsum("hwc,hwcd->d", window, layer["kernel"])
    return out


def doubled(x):
    """`[h, w, C]` at twice its size, bilinear with half-pixel centres, clamped at the edge."""
    for axis in (0, 1):
        n = x.shape[axis]
        at = (np.arange(2 * n) + 0.5) / 2 - 0.5
        rows = [np.interp(at, np.arange(n), row) for row in np.moveaxis(x, axis, -1).reshape(-1, n)]
        shape = (*np.delete(x.shape, axis), 2 * n)
        x = np.moveaxis(np.reshape(rows, shape), -1, axis)
    return x


def subnet(p, x):
    """The outputs `[H, W, 2 C]` by scale for one image, each scale with those next to it."""
    h = [conv(m, p[f"conv1_{i}"]) for i, m in enumerate(x)]
    h = [np.where(m > 0, m, 0.1 * m) for m in h]
    o = [conv(m, p[f"conv2_{i}"]) for i, m in enumerate(h)]
    o[0] += conv(doubled(h[1]), p["up_0"])
    o[1] += conv(doubled(h[2]), p["up_1"]) + conv(h[0], p["down_1"], stride=2)
    o[2] += conv(h[1], p["down_2"], stride=2)
    return [m * p[f"gamma_{i}"] for i, m in enumerate(o)]


def test_block_is_its_formula():
    with jax.enable_x64(True):
        block, params, x = small_block(5, 5)
        order = permutations(5)
        found, log_det = jax.jit(block.apply)(params, x, order)
    p = params["params"]
    for image in range(2):
        total, y = 0.0, [m[image][..., q] for m, q in zip(x, order)]
        a, b = [m[..., :2] for m in y], [m[..., 2:] for m in y]
        for i, steer in enumerate(subnet(p["from_second"], b)):
            log_scale = 3 * 0.636 * np.arctan(steer[..., :2] / 3)
            a[i] = np.exp(log_scale) * a[i] + steer[..., 2:]
            total += log_scale.sum()
        for i, steer in enumerate(subnet(p["from_first"], a)):
            log_scale = 3 * 0.636 * np.arctan(steer[..., :3] / 3)
            b[i] = np.exp(log_scale) * b[i] + steer[..., 3:]
            total += log_scale.sum()
        for i in range(3):
            expected = np.concatenate([a[i], b[i]], -1)
            np.testing.assert_allclose(found[i][image], expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(log_det[image], total, rtol=1e-9)


def test_log_scale_stays_within_the_clamp():
    s = np.linspace(-1e4, 1e4, 2001)
    found = np.asarray(cross_scale.atan_clamp(s, 3.0))
    assert 2.99 < np.abs(found).max() < 3 and (np.diff(found) >= 0).all()
    slope = jax.grad(lambda v: cross_scale.atan_clamp(v, 3.0))(0.0)
    assert slope == pytest.approx(0.636)


def test_start_is_torch_default_and_factors_of_zero():
    net = cross_scale.CrossScaleSubnet(features=24, hidden=32, kernel_size=5)
    params = jax.jit(net.init)(jax.random.key(0), maps(16))["params"]
    names = {f"{kind}_{i}" for kind in ("conv1", "conv2", "gamma") for i in range(3)}
    assert set(params) == names | {"up_0", "up_1", "down_1", "down_2"}
    firsts = set()
    for name, part in params.items():
        if name.startswith("gamma"):
            assert part.shape == () and part == 0
            continue
        inputs = 16 if name.startswith("conv1") else 32
        assert part["kernel"].shape == (5, 5, inputs, 32 if inputs == 16 else 24)
        bound = 1 / np.sqrt(inputs * 25)
        for leaf in part.values():
            assert 0.8 * bound < np.abs(leaf).max() <= bound
            firsts.add(float(leaf.ravel()[0] / bound))
    assert len(firsts) == 20  # no number is used twice


def test_half_precision_subnets_leave_maps_and_log_determinant_in_float32():
    exact, params, x = small_block(5, 5, dtype=np.float32)
    half = cross_scale.CrossScaleCoupling(hidden=3, kernel_size=5, dtype=jnp.bfloat16)
    assert all(
        leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(start(half, x, permutations(5)))
    )
    y, log_det = jax.jit(half.apply)(params, x, permutations(5))
    assert log_det.dtype == jnp.float32 and all(m.dtype == jnp.float32 for m in y)
    expected, _ = jax.jit(exact.apply)(params, x, permutations(5))
    for a, b in zip(y, expected):
        np.testing.assert_allclose(a, b, atol=0.2)
