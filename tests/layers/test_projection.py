"""The projection head against numpy, and how it starts."""

import jax
import numpy as np

from imvad_jax.layers.projection import ProjectionHead


def test_blocks_of_linear_norm_relu_then_a_linear_layer():
    x = np.random.default_rng(0).normal(2, 3, (10, 6)).astype(np.float32)
    head = ProjectionHead((6, 4), classes=3)
    variables = head.init(jax.random.key(0), x, False)
    params = jax.tree.map(np.asarray, variables["params"])
    expected = x.astype(np.float64)
    for number in (0, 1):
        expected = expected @ params[f"linear{number}"]["kernel"]
        expected = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-5)
        expected = np.maximum(expected, 0)  # scale and bias start at 1 and 0
    expected = expected @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    found, changed = head.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    moved = changed["batch_stats"]["norm0"]
    first = x @ params["linear0"]["kernel"]
    np.testing.assert_allclose(moved["mean"], 0.1 * first.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * first.var(0, ddof=1), rtol=1e-4)


def test_it_starts_uniform_within_one_by_the_root_of_the_width():
    head = ProjectionHead((400,), classes=300)
    params = head.init(jax.random.key(1), np.zeros((1, 100), np.float32), False)["params"]
    for name, values in (
        ("linear0", params["linear0"]["kernel"]),
        ("classifier", params["classifier"]["kernel"]),
        ("classifier", params["classifier"]["bias"]),
    ):
        bound = 0.1 if name == "linear0" else 0.05
        assert np.abs(values).max() <= bound and np.abs(values).max() > 0.98 * bound
        np.testing.assert_allclose(np.std(values), bound / 3**0.5, rtol=0.1)


def test_without_widths_it_is_the_classifier_alone():
    head = ProjectionHead((), classes=2)
    variables = head.init(jax.random.key(0), np.zeros((1, 5), np.float32), False)
    assert set(variables) == {"params"} and set(variables["params"]) == {"classifier"}
