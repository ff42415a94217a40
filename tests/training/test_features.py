"""Features kept for all epochs give the training that recomputes them gives."""

import jax
import numpy as np
import pytest

from imvad_jax.training.features import Features
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel
from tests.methods.small import images, make


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_kept_and_recomputed_features_train_alike(devices):
    parallel = Parallel(jax.local_devices()[:devices])

    def train(keep):
        overrides = {"cache_features": keep, "epochs": 1, "batch_size": 4, "optimizer": "sgd"}
        detector, variables = make("rd4ad", learning_rate=0.01, **overrides)
        shown = {}

        def progress(total, label):
            shown[label] = total
            return lambda done: None

        return fit(detector, variables, images(10), parallel, progress=progress), shown

    (kept, shown), (again, _) = train(True), train(False)
    assert shown == {"features": 10, "train": 10}
    differences = jax.tree.map(
        lambda a, b: np.abs(a - b).max() / np.abs(b).max(), kept["params"], again["params"]
    )
    assert max(jax.tree.leaves(differences)) < 1e-4


def test_batches_are_rows_of_every_array():
    tree = {"a": np.arange(12).reshape(6, 2), "b": np.arange(6)}
    batches = list(Features(tree).batches(2, np.array([5, 0, 3, 3])))
    assert [b.images["b"].tolist() for b in batches] == [[5, 0], [3, 3]]
    np.testing.assert_array_equal(batches[0].images["a"], tree["a"][[5, 0]])
    assert all(b.valid.all() for b in batches)
