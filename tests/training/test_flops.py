"""Operations counted in traced programs, against counts by hand."""

import jax
import jax.numpy as jnp
from jax import lax

from imvad_jax.training.compiled import traced
from imvad_jax.training.flops import count_flops
from imvad_jax.training.parallel import Parallel

LAYOUT = ("NHWC", "HWIO", "NHWC")


def flops(function, *shapes):
    return count_flops(traced(function, *(jnp.zeros(shape) for shape in shapes)))


def test_a_batched_matrix_product():
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 2, 3), (5, 3, 7)) == (
        2 * 5 * 2 * 3 * 7,
        True,
    )


def test_a_grouped_strided_convolution():
    def convolve(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT, feature_group_count=4
        )

    assert flops(convolve, (3, 8, 8, 16), (3, 3, 4, 20)) == (2 * 3 * 4 * 4 * 20 * 9 * 4, True)


def test_inserted_zeros_are_left_out():
    def convolve(x, kernel):
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=LAYOUT)

    assert flops(convolve, (1, 8, 8, 4), (2, 2, 4, 6)) == (2 * 16 * 16 * 6 * 4 * 4 // 4, True)


def test_all_rounds_of_a_loop_count():
    def loop(a):
        return lax.map(lambda row: lax.fori_loop(0, 3, lambda i, x: a @ x, row), a)

    assert flops(jax.jit(loop), (4, 4)) == (4 * 3 * 2 * 4 * 4, True)


def test_a_loop_without_a_known_end_is_said_to_be_incomplete():
    def loop(a):
        return lax.while_loop(lambda x: x.sum() < 1, lambda x: a @ x, a)

    assert flops(loop, (4, 4)) == (2 * 4**3, False)
    assert flops(lambda a: lax.while_loop(lambda x: x.sum() < 1, jnp.exp, a), (4, 4)) == (0, True)


def test_the_dearer_branch_counts():
    def branch(a):
        return lax.cond(a.sum() > 0, lambda x: x @ x @ x, lambda x: x @ x, a)

    assert flops(branch, (4, 4)) == (2 * 2 * 4**3, True)


def test_both_passes_of_a_gradient_count():
    grad = jax.grad(lambda w, x: ((x @ w) ** 2).sum(), argnums=(0, 1))
    assert flops(grad, (3, 5), (7, 3)) == (3 * 2 * 7 * 3 * 5, True)


def test_all_devices_count():
    parallel = Parallel(jax.local_devices()[:4])
    step = parallel.compile(lambda w, x: x @ w, split=(False, True))
    assert flops(step, (3, 5), (4, 2, 3)) == (2 * 8 * 3 * 5, True)
