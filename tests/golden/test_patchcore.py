"""PatchCore against amazon-science/patchcore-inspection: patches, coreset, distances, maps."""

import jax
import numpy as np
import pytest

from imvad_jax.methods.patchcore import PatchCore, PatchCoreConfig
from imvad_jax.ops import coreset, neighbors
from tests.golden import resnets, training
from tests.golden.files import as_float, images

SMALL = {
    "backbone": "resnet18", "image_size": 64, "crop_size": 0, "batch_size": 2,
    "embedding_dim": 128, "projection_dim": 32,
}  # fmt: skip


def fitted(golden, monkeypatch, **options):
    """A detector with the official projection and starts of the coreset, fitted."""
    starts = golden["starts"]
    monkeypatch.setattr(coreset, "draw_starts", lambda key, count: starts)
    detector = PatchCore(PatchCoreConfig(**SMALL, **options))
    variables = {
        "backbone": resnets.variables("resnet18", detector.outputs),
        "memory": {"projection": np.ascontiguousarray(golden["projection"].T)},
    }
    return detector, training.gathered(detector, variables, images(12, 64, 61))


def bank_of(variables) -> np.ndarray:
    """The rows of the memory bank, in the order in which they were picked."""
    memory = jax.device_get(variables["memory"])
    return (memory["bank"] + memory["center"])[: int(memory["bank_count"])]


@pytest.fixture(scope="module")
def embed():
    """Patch vectors of images, by the detector that gives them."""
    return jax.jit(
        lambda detector, variables, x: detector.apply(variables, x, method="embed"),
        static_argnums=0,
    )


def test_patches_coreset_distances_map_and_score(load_golden, monkeypatch, embed):
    golden = load_golden("patchcore")
    detector, variables = fitted(golden, monkeypatch)
    width, test = SMALL["embedding_dim"], as_float(images(3, 64, 62))
    train = embed(detector, variables, as_float(images(12, 64, 61))).reshape(-1, width)
    golden.check("patches of the training images", train, golden["train_embedding"], 1e-5)
    queries = embed(detector, variables, test).reshape(-1, width)
    golden.check("patches of the test images", queries, golden["test_embedding"], 1e-5)
    bank = bank_of(variables)
    picks = np.argmin(((bank[:, None] - np.asarray(train)[None]) ** 2).sum(-1), 1)
    golden.check("picks of the coreset, in order", picks, golden["picks"], 0)
    center = np.asarray(variables["memory"]["center"])
    distances, nearest = neighbors.nearest(queries - center, bank - center, 1)
    golden.check("nearest rows of the bank", nearest, golden["nearest"], 0)
    golden.check("squared distances", distances[:, 0], golden["patch_distance"], 1e-4)
    found = jax.jit(detector.apply)(variables, test)
    golden.check("map", found.anomaly_map, golden["map"], 1e-4)
    golden.check("score", found.score, golden["score"], 1e-4)


def test_three_neighbours_and_patches_of_5(load_golden, monkeypatch, embed):
    golden = load_golden("patchcore", "patchcore_k3_p5")
    detector, variables = fitted(golden, monkeypatch, num_neighbors=3, patch_size=5)
    width, test = SMALL["embedding_dim"], as_float(images(3, 64, 62))
    queries = embed(detector, variables, test).reshape(-1, width)
    name = "3 neighbours, 5 x 5"
    golden.check(f"patches ({name})", queries, golden["test_embedding"], 1e-5)
    train = np.asarray(embed(detector, variables, as_float(images(12, 64, 61)))).reshape(-1, width)
    picks = np.argmin(((bank_of(variables)[:, None] - train[None]) ** 2).sum(-1), 1)
    golden.check(f"picks of the coreset ({name})", picks, golden["picks"], 0)
    found = jax.jit(detector.apply)(variables, test)
    golden.check(f"map ({name})", found.anomaly_map, golden["map"], 1e-4)
    golden.check(f"score ({name})", found.score, golden["score"], 1e-4)
