"""Both forms of convolution train alike: the loss and gradients of whole methods.

In float64, where nothing but a fault tells them apart: in float32 the gradients of a network of
ReLUs and batch norms on two images differ by up to a hundredth between any two programs.
"""

import jax
import numpy as np
import pytest

from imvad_jax.model.make import make
from imvad_jax.training.fit import init_variables

# At this size every stage of a ResNet-18 goes by Winograd.
SIZE = 128
TOLERANCE = 1e-9  # of the largest entry of all gradients
FIELDS = {"crop_size": 0, "image_size": SIZE, "batch_size": 2}
# Each block, step and layer repeats the same.
FEWER = {
    "csflow": {"flow_blocks": 1},
    "fastflow": {"flow_steps": 1},
    "rd4ad": {"layers": "layer1,layer2"},
    "stpm": {"layers": "layer1,layer2"},
}


def double(tree):
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else leaf,
        jax.device_get(tree),
    )


def loss_and_gradients(detector, variables):
    images = np.random.default_rng(0).random((2, SIZE, SIZE, 3))

    @jax.jit
    def run(variables):
        def loss(params):
            (found, _), _ = detector.apply(
                {**variables, "params": params}, images, method="image_loss",
                mutable=["batch_stats"], rngs={"noise": jax.random.key(1)},
            )  # fmt: skip
            return found

        return jax.value_and_grad(loss)(variables["params"])

    return jax.device_get(run(variables))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["csflow", "fastflow", "favae", "rd4ad", "stpm"])
def test_loss_and_gradients_are_those_of_plain_convolutions(method):
    fields = FIELDS | FEWER.get(method, {})
    start = make(method, weights="random", preset="cpu", **fields)
    variables = double(init_variables(start.detector, start.variables.get("backbone"), 0))
    found = []
    with jax.enable_x64(True):
        for form in ("auto", "xla"):
            model = make(
                method, weights="random", preset="cpu", dtype="float64", convolution=form, **fields
            )
            found.append(loss_and_gradients(model.detector, variables))
    (loss, gradients), (expected_loss, expected) = found
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max() / largest, gradients, expected)
    assert 0 < max(jax.tree.leaves(differences)) < TOLERANCE  # 0: the forms were the same
