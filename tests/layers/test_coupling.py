"""Coupling layers against autodiff and their formulas in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imvad_jax.layers import coupling

KERNELS = (3, 1, 3)


def randomised(params, seed=0, size=0.3):
    """The parameters moved away from their start, where every step is nearly the identity."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + size * rng.standard_normal(p.shape).astype(p.dtype), params)


def block_and_stack(channels=4, size=3):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((2, size, size, channels)))
    permutations = coupling.draw_permutations(jax.random.key(2), len(KERNELS), channels)
    block = coupling.AllInOneBlock(3)
    stack = coupling.Flow(KERNELS)
    for module, permutation in ((block, permutations[0]), (stack, permutations)):
        params = randomised(module.init(jax.random.key(0), x, permutation))
        yield module, params, x, permutation


@pytest.mark.parametrize("channels", [4, 5])
def test_inverse_undoes_forward(channels):
    for module, params, x, permutation in block_and_stack(channels):
        y, log_det = module.apply(params, x, permutation)
        back, inverse_log_det = module.apply(params, y, permutation, reverse=True)
        assert np.abs(np.asarray(y - x)).max() > 0.1
        np.testing.assert_allclose(back, x, atol=1e-5)
        np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-4)


def test_log_determinant_is_that_of_the_jacobian():
    for module, params, x, permutation in block_and_stack():
        for direction in (False, True):

            def flat(v, module=module, params=params, permutation=permutation, back=direction):
                return module.apply(params, v.reshape(1, 3, 3, 4), permutation, back)[0].ravel()

            _, log_det = module.apply(params, x, permutation, direction)
            jacobians = [np.asarray(jax.jacrev(flat)(image.ravel()), np.float64) for image in x]
            expected = [np.linalg.slogdet(jacobian)[1] for jacobian in jacobians]
            assert np.abs(expected).min() > 0.1
            np.testing.assert_allclose(log_det, expected, rtol=1e-4, atol=1e-4)


def conv(x, kernel, bias):
    """Correlation with zero padding in float64 numpy, `[H, W, C]`."""
    k = kernel.shape[0]
    padded = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    out = np.zeros((*x.shape[:2], kernel.shape[-1])) + bias
    for i in range(k):
        for j in range(k):
            out += padded[i : i + x.shape[0], j : j + x.shape[1]] @ kernel[i, j]
    return out


@pytest.mark.parametrize("channels", [4, 5])
def test_block_is_its_formula(channels):
    module, params, x, permutation = next(iter(block_and_stack(channels)))
    found, log_det = module.apply(params, x, permutation)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
    passive = channels - channels // 2
    scale = 0.1 * np.log(1 + np.exp(0.5 * p["global_scale"])) / 0.5
    for image, y, total in zip(np.asarray(x, np.float64), found, log_det):
        hidden = conv(image[..., :passive], **p["subnet"]["conv1"]).clip(0)
        a = 0.1 * conv(hidden, **p["subnet"]["conv2"])
        j = 2 * np.tanh(a[..., : channels // 2])
        moved = image[..., passive:] * np.exp(j) + a[..., channels // 2 :]
        joined = np.concatenate([image[..., :passive], moved], -1) * scale + p["global_offset"]
        np.testing.assert_allclose(y, joined[..., np.asarray(permutation)], atol=1e-5)
        np.testing.assert_allclose(total, j.sum() + 9 * np.log(scale).sum(), rtol=1e-5)


def test_start_is_torch_default_and_a_global_scale_of_one():
    x = jnp.zeros((1, 4, 4, 64))
    params = coupling.AllInOneBlock(3).init(jax.random.key(0), x, jnp.arange(64))["params"]
    assert set(params) == {"global_scale", "global_offset", "subnet"}
    assert params["subnet"]["conv1"]["kernel"].shape == (3, 3, 32, 32)
    assert params["subnet"]["conv2"]["kernel"].shape == (3, 3, 32, 64)
    bound = 1 / np.sqrt(32 * 9)
    for name in ("conv1", "conv2"):
        for leaf in params["subnet"][name].values():
            assert 0.8 * bound < np.abs(leaf).max() <= bound
    scale = 0.1 * np.logaddexp(0, 0.5 * np.asarray(params["global_scale"], np.float64)) / 0.5
    np.testing.assert_allclose(scale, 1, rtol=1e-6)
    assert not np.any(params["global_offset"])


def test_permutations_are_seeded_distinct_and_differ_by_step():
    drawn = np.asarray(coupling.draw_permutations(jax.random.key(0), 5, 40))
    again = np.asarray(coupling.draw_permutations(jax.random.key(0), 5, 40))
    other = np.asarray(coupling.draw_permutations(jax.random.key(1), 5, 40))
    np.testing.assert_array_equal(np.sort(drawn), np.tile(np.arange(40), (5, 1)))
    np.testing.assert_array_equal(drawn, again)
    assert len({tuple(row) for row in (*drawn, *other)}) == 10


def test_permute_and_its_gradient_are_those_of_indexing():
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal((2, 2, 3, 7)).astype(np.float32)
    permutation = jnp.asarray(rng.permutation(7))
    np.testing.assert_array_equal(coupling.permute(x, permutation), x[..., permutation])
    np.testing.assert_array_equal(
        coupling.unpermute(coupling.permute(x, permutation), permutation), x
    )
    found = jax.grad(lambda v: jnp.sum(weights * coupling.permute(v, permutation)))(x)
    expected = np.zeros_like(x)
    expected[..., permutation] = weights
    np.testing.assert_array_equal(found, expected)


def test_the_program_of_a_flow_gathers_nothing():
    x = jnp.zeros((2, 4, 4, 6))
    permutations = coupling.draw_permutations(jax.random.key(2), len(KERNELS), 6)
    flow = coupling.Flow(KERNELS)
    params = flow.init(jax.random.key(0), x, permutations)

    def loss(params, x):
        z, log_det = flow.apply(params, x, permutations)
        return jnp.sum(z**2) - jnp.sum(log_det)

    text = jax.jit(jax.grad(loss, (0, 1))).lower(params, x).as_text()
    assert "stablehlo.dot_general" in text
    assert "gather" not in text and "scatter" not in text


def test_half_precision_subnet_leaves_the_flow_invertible():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 3, 4)), jnp.float32)
    permutations = coupling.draw_permutations(jax.random.key(2), 3, 4)
    flow = coupling.Flow(KERNELS, dtype=jnp.bfloat16)
    params = randomised(flow.init(jax.random.key(0), x, permutations))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    z, log_det = flow.apply(params, x, permutations)
    assert z.dtype == log_det.dtype == jnp.float32
    exact, _ = coupling.Flow(KERNELS).apply(params, x, permutations)
    np.testing.assert_allclose(z, exact, atol=0.1)
