"""CFA against cases worked by hand and definitions written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from imvad_jax.backbones import resnet
from imvad_jax.backbones.weights import load_weights
from imvad_jax.errors import UserError
from imvad_jax.methods.cfa import (
    CFA,
    CFAConfig,
    CoupledHyperspheres,
    RunningMean,
    distances_to,
    softmin_score,
)
from imvad_jax.ops import neighbors
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.job import Job
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.score import score
from imvad_jax.training.statistics import statistics_phase
from tests.methods.small import images

SPEC = next(spec for spec in resnet.SPECS if spec.name == "resnet18")
BACKBONE = {}


def small(**overrides):
    """A detector of 64 px on a random ResNet-18, and its variables before the fit."""
    detector = CFA(CFAConfig(backbone="resnet18", image_size=64, crop_size=0, **overrides))
    if not BACKBONE:
        BACKBONE.update(load_weights(SPEC, "random", detector.outputs).variables)
    return detector, init_variables(detector, BACKBONE, seed=0)


def with_centers(detector, variables, source, devices=1):
    parallel = Parallel(jax.local_devices()[:devices])
    return statistics_phase(detector, variables, Job(source, parallel))


def as_input(source):
    return source.images.astype(np.float32) / 255


def call(detector, variables, x, method="__call__"):
    return jax.jit(lambda v, x: detector.apply(v, x, method=method))(variables, x)


def squared_distances(descriptors, centers, k):
    """To the k nearest centres of each descriptor `[B, P, D]`, found and taken as CFA does."""
    centered, norms = centers - centers.mean(0), ((centers - centers.mean(0)) ** 2).sum(-1)
    chosen = [
        neighbors.nearest_rows_of_maps([rows[None] - centers.mean(0)], [centered], norms, k)
        for rows in jax.lax.stop_gradient(descriptors)
    ]
    return distances_to(descriptors, centers, jnp.stack(chosen))


# Three descriptors on a line, four centres at 0, 1, 3, 7: all distances are small integers.
DESCRIPTORS = jnp.array([[[0.0, 0.0], [2.0, 0.0], [4.0, 0.0]]])
CENTERS = jnp.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])


def hand_loss(radius, **overrides):
    config = CFAConfig(num_negatives=1, radius=radius, nu=0.5, **overrides)
    squared = squared_distances(DESCRIPTORS, CENTERS, config.num_neighbors + 1)
    module = CoupledHyperspheres(config)
    variables = module.init(jax.random.key(0), squared)
    loss, metrics = module.apply(variables, squared)
    slope = jax.grad(lambda v: module.apply(v, squared)[0])(variables)["params"]["radius"]
    return float(loss), {k: float(v) for k, v in metrics.items()}, float(slope)


def test_squared_distances_to_the_nearest_ascending():
    found = squared_distances(DESCRIPTORS, CENTERS, 3)
    # From 2 to the centres 1 and 3 it is equally far.
    np.testing.assert_allclose(found, [[[0, 1, 9], [1, 1, 4], [1, 9, 9]]], atol=1e-6)


def test_loss_by_hand_one_neighbor():
    # K = 1, J = 1, r^2 = 4: nothing attracts (0, 1, 1 < 4); repelled from the second nearest
    # are 4 - 1 - .5, 4 - 1 - .5 and nothing (9). Their mean over the three patches, over nu.
    loss, metrics, slope = hand_loss(2.0, num_neighbors=1, alpha=0.5)
    assert loss == pytest.approx((2.5 + 2.5) / 3 / 0.5, rel=1e-5)
    assert metrics["attraction"] == 0 and metrics["radius"] == pytest.approx(2)
    assert slope == pytest.approx(2 * (2 * 2.0) / 3 / 0.5, rel=1e-5)  # d r^2 / d r = 2 r, twice


def test_loss_by_hand_two_neighbors():
    # K = 2, J = 1, r^2 = .25: the mean of (0, .75, .75, .75, .75, 8.75) attracts; the third
    # nearest are 9, 4, 9 away: none repels.
    loss, metrics, slope = hand_loss(0.5, num_neighbors=2, alpha=0.5)
    assert loss == pytest.approx((4 * 0.75 + 8.75) / 6 / 0.5, rel=1e-5)
    assert metrics["repulsion"] == 0
    assert slope == pytest.approx(-5 * (2 * 0.5) / 6 / 0.5, rel=1e-5)


def test_loss_by_hand_both_parts():
    # K = 1, r^2 = 1.44 with the first two centres taken away: distances 9, 49; 1, 25; 1, 9.
    config = CFAConfig(num_neighbors=1, num_negatives=1, radius=5.0, nu=1.0, alpha=0.25)
    squared = squared_distances(DESCRIPTORS, CENTERS[2:], 2)
    module = CoupledHyperspheres(config)
    loss, _ = module.apply({"params": {"radius": jnp.asarray(2.0)}}, squared)
    assert float(loss) == pytest.approx((9 - 4) / 3, rel=1e-6)
    loss, _ = module.apply({"params": {"radius": jnp.asarray(6.0)}}, squared)
    assert float(loss) == pytest.approx((36 - 25 - 0.25 + 36 - 9 - 0.25) / 3, rel=1e-6)


def test_gradient_of_the_distances_and_no_cancellation_far_from_the_origin():
    rng = np.random.default_rng(0)
    centers = 100 + rng.normal(size=(50, 8))
    points = centers[:20].reshape(2, 10, 8) + 0.01 * rng.normal(size=(2, 10, 8))
    weights = rng.uniform(size=(2, 10, 3))
    centers32, points32 = (jnp.asarray(a, jnp.float32) for a in (centers, points))
    difference = np.asarray(points32, np.float64)[:, :, None] - np.asarray(centers32, np.float64)
    squared = (difference**2).sum(-1)
    order = squared.argsort(-1)[..., :3]
    expected = np.take_along_axis(squared, order, -1)
    chosen = np.take_along_axis(difference, order[..., None], 2)
    found = squared_distances(points32, centers32, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    gradient = jax.grad(lambda p: (squared_distances(p, centers32, 3) * weights).sum())(points32)
    np.testing.assert_allclose(gradient, (2 * weights[..., None] * chosen).sum(2), rtol=1e-4)


def test_the_centers_get_no_gradient():
    gradient = jax.grad(lambda c: squared_distances(DESCRIPTORS, c, 2).sum())(CENTERS)
    assert not np.asarray(gradient).any()


def test_softmin_score_is_the_nearest_distance_by_its_share():
    distances = np.random.default_rng(0).uniform(0, 3, (2, 5, 3))
    distances.sort(-1)
    shares = np.exp(-distances) / np.exp(-distances).sum(-1, keepdims=True)
    found = softmin_score(jnp.asarray(distances))
    np.testing.assert_allclose(found, shares[..., 0] * distances[..., 0], rtol=1e-6)
    assert float(softmin_score(jnp.array([0.0, 0.0, 0.0]))) == 0
    assert np.isfinite(float(softmin_score(jnp.array([1e4, 2e4, 3e4]))))


def averaged_in_numpy(maps):
    """Leaky ReLU and 3x3 mean with zeros beyond the border."""
    for x in maps:
        x = np.asarray(x, np.float64)
        yield ndimage.uniform_filter(np.where(x > 0, x, 0.01 * x), (0, 3, 3, 0), mode="constant")


def enlarged_in_numpy(maps, side):
    """Maps `[B, h, w, C]`, enlarged bilinearly, one after the other."""
    parts = []
    for x in maps:
        place = np.clip((np.arange(side) + 0.5) * x.shape[1] / side - 0.5, 0, x.shape[1] - 1)
        rows, columns = np.meshgrid(place, place, indexing="ij")
        parts.append(
            np.stack([
                np.stack([ndimage.map_coordinates(image[..., c], [rows, columns], order=1)
                          for c in range(x.shape[-1])], -1)
                for image in x
            ])
        )  # fmt: skip
    return np.concatenate(parts, -1)


def test_maps_are_averaged_pre_activations_and_descriptors_lie_on_the_grid_of_the_first_layer():
    detector, variables = small()
    x = as_input(images(2))
    maps = call(detector, variables, x, "features")
    assert detector.outputs == ("layer1_pre", "layer2_pre", "layer3_pre")
    assert min(float(m.min()) for m in maps.values()) < 0
    found, expected = call(detector, variables, x, "averaged"), averaged_in_numpy(maps.values())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    patches = enlarged_in_numpy([np.asarray(m, np.float64) for m in found], 16)
    place = 2 * np.arange(16) / 15 - 1
    grid = np.stack(np.meshgrid(place, place, indexing="ij"), -1)
    stacked = np.concatenate([patches, np.broadcast_to(grid, (2, 16, 16, 2))], -1)
    conv = jax.tree.map(np.asarray, variables["params"]["descriptor"]["conv"])
    expected = stacked @ conv["kernel"][0, 0].astype(np.float64) + conv["bias"]
    found = call(detector, variables, x, "embed").reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_loss_and_its_gradient_are_those_of_all_distances():
    detector, variables = small(radius=3.0, alpha=0.5)
    fitted = with_centers(detector, variables, images(5))
    x = as_input(images(2, 2))
    centers = fitted["memory"]["centers"]

    def expected(params):
        embedded = detector.apply(fitted | {"params": params}, x, method="embed")
        squared = jnp.sum((embedded[:, :, None] - centers) ** 2, -1)
        squared = jnp.sort(squared, -1)[..., :6]
        module = CoupledHyperspheres(detector.config)
        return module.apply({"params": params["hyperspheres"]}, squared)[0]

    def found(params):
        return detector.apply(fitted | {"params": params}, x, method="image_loss")[0]

    (loss, slopes), (other, others) = (
        jax.jit(jax.value_and_grad(f))(fitted["params"]) for f in (found, expected)
    )
    assert float(loss) == pytest.approx(float(other), rel=1e-5)
    for one, two in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-4 * np.abs(two).max())


@pytest.mark.parametrize(("count", "devices"), [(5, 1), (8, 1), (9, 8)])
def test_centers_are_the_mean_descriptors_of_all_images(count, devices):
    detector, variables = small()
    source = images(count)
    fitted = with_centers(detector, variables, source, devices)
    embedding = np.asarray(call(detector, variables, as_input(source), "embed"), np.float64)
    expected = embedding.mean(0)
    assert expected.shape == (256, 448)
    centers = np.asarray(fitted["memory"]["centers"])
    np.testing.assert_allclose(centers, expected, atol=1e-4 * np.abs(expected).max())


def test_a_device_without_images_does_not_count():
    detector, variables = small()
    full = RunningMean(jnp.asarray(3.0), jnp.ones((256, 448)))
    idle = detector.init_accumulator(8)
    found = detector.apply(
        variables, [idle, full], 3, jax.random.key(0), lambda *_: None, method="finalize"
    )
    np.testing.assert_array_equal(found["centers"], full.mean)


def test_k_means_compresses_the_centers():
    detector, variables = small(gamma_c=4)
    source = images(6)
    one, again = (with_centers(detector, variables, source)["memory"]["centers"] for _ in "ab")
    assert one.shape == (64, 448)
    np.testing.assert_array_equal(one, again)
    plain, _ = small()
    means = np.asarray(with_centers(plain, variables, source)["memory"]["centers"])
    nearest = ((means[:, None] - np.asarray(one)[None]) ** 2).sum(-1).argmin(1)
    # A k-means solution: each centre is the mean of the positions that it is nearest to.
    for number in np.unique(nearest):
        np.testing.assert_allclose(one[number], means[nearest == number].mean(0), atol=1e-2)


def test_map_and_score_from_their_definition():
    detector, variables = small()
    fitted = with_centers(detector, variables, images(6))
    test = images(3, 1)
    embedding = np.asarray(call(detector, fitted, as_input(test), "embed"), np.float64)
    centers = np.asarray(fitted["memory"]["centers"], np.float64)
    distances = np.stack([np.linalg.norm(e[:, None] - centers[None], axis=-1) for e in embedding])
    nearest = np.sort(distances, -1)[..., :3]
    shares = np.exp(nearest.min(-1, keepdims=True) - nearest)
    patch = (nearest[..., 0] / shares.sum(-1)).reshape(3, 16, 16)
    place = np.clip((np.arange(64) + 0.5) / 4 - 0.5, 0, 15)
    grid = np.meshgrid(place, place, indexing="ij")
    maps = np.stack([
        ndimage.gaussian_filter(ndimage.map_coordinates(p, grid, order=1), 4) for p in patch
    ])  # fmt: skip
    found = score(detector, fitted, test, Parallel(jax.local_devices()[:1]))
    np.testing.assert_allclose(found.maps, maps, rtol=1e-3)
    np.testing.assert_allclose(found.image, maps.max((1, 2)), rtol=1e-3)


def test_training_lowers_the_loss_moves_every_parameter_and_leaves_the_centers():
    detector, variables = small(epochs=5)
    assert float(variables["params"]["hyperspheres"]["radius"]) == pytest.approx(1e-5)
    metrics = []
    found = fit(
        detector,
        variables,
        images(16),
        Parallel(jax.local_devices()[:1]),
        on_epoch=lambda epoch, values: metrics.append(values),
    )
    assert set(metrics[0]) == {"loss", "attraction", "repulsion", "radius"}
    assert metrics[-1]["loss"] < 0.7 * metrics[0]["loss"]
    assert set(found["params"]) == {"descriptor", "hyperspheres"}
    same = jax.tree.map(lambda a, b: bool((a == b).all()), found["params"], variables["params"])
    assert not any(jax.tree.leaves(same))
    untrained = with_centers(detector, variables, images(16))
    np.testing.assert_array_equal(found["memory"]["centers"], untrained["memory"]["centers"])


def test_the_loss_is_the_mean_over_the_images():
    detector, variables = small()
    fitted = with_centers(detector, variables, images(5))
    x = as_input(images(4, 2))
    both = float(call(detector, fitted, x, "image_loss")[0])
    halves = [float(call(detector, fitted, part, "image_loss")[0]) for part in (x[:2], x[2:])]
    assert both == pytest.approx(np.mean(halves), rel=1e-5)


def test_half_precision_reaches_the_backbone_only():
    detector, variables = small(dtype="bfloat16")
    x = as_input(images(2))
    assert call(detector, variables, x, "features")["layer1_pre"].dtype == jnp.bfloat16
    assert call(detector, variables, x, "embed").dtype == jnp.float32
    fitted = with_centers(detector, variables, images(3))
    assert call(detector, fitted, x, "image_loss")[0].dtype == jnp.float32
    assert call(detector, fitted, x).anomaly_map.dtype == jnp.float32


def test_efficientnet_has_linear_stages_and_doubled_descriptors():
    detector = CFA(CFAConfig(backbone="efficientnet_lite0", image_size=64, crop_size=0))
    assert detector.outputs == ("layer1", "layer2", "layer3")
    assert (detector.total_channels, detector.dim) == (176, 352)
    narrow = CFA(CFAConfig(backbone="resnet18", crop_size=0, gamma_d=4))
    assert (narrow.total_channels, narrow.dim, narrow.num_centers) == (448, 112, 4096)


def test_the_official_shapes():
    detector = CFA(CFAConfig())
    assert (detector.grid, detector.dim, detector.num_centers) == ((56, 56), 1792, 3136)


def test_too_few_centers_are_refused():
    detector, variables = small(gamma_c=64)
    with pytest.raises(UserError, match="leaves 4 centres; the loss needs .* = 6"):
        with_centers(detector, variables, images(2))


@pytest.mark.parametrize("field", ["num_neighbors", "num_negatives", "gamma_c", "gamma_d", "nu"])
def test_bad_values_are_refused(field):
    with pytest.raises(UserError, match=f"{field}=0"):
        CFAConfig(**{field: 0})
