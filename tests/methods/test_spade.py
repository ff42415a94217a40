"""SPADE against its definition in float64."""

import numpy as np

from imvad_jax.ops import resample
from tests.methods.small import fitted, images


def test_image_score_and_map():
    detector, variables, _ = fitted("spade", count=12, devices=8)
    names = (*detector.config.layers, detector.config.pooled_layer)

    def features(array):
        found = detector.apply(
            variables, array.images.astype(np.float32) / 255, names, method="features"
        )
        return {k: np.asarray(v, np.float64) for k, v in found.items()}

    train, test = features(images(12)), features(images(2, 1))
    prediction = detector.apply(variables, images(2, 1).images.astype(np.float32) / 255)
    pooled = [f[detector.config.pooled_layer].mean((1, 2)) for f in (train, test)]
    for i in range(2):
        distances = np.linalg.norm(pooled[0] - pooled[1][i], axis=1)
        nearest = np.argsort(distances)[:3]
        np.testing.assert_allclose(prediction.score[i], distances[nearest].mean(), rtol=1e-3)
        total = 0
        for name in detector.config.layers:
            gallery = train[name][nearest].reshape(-1, train[name].shape[-1])
            query = test[name][i].reshape(-1, gallery.shape[-1])
            grid = np.linalg.norm(query[:, None] - gallery[None], axis=-1).min(1)
            grid = grid.reshape(1, *test[name].shape[1:3])
            total = total + np.asarray(resample.upsample_and_smooth(grid, (64, 64), 4.0))
        np.testing.assert_allclose(prediction.anomaly_map[i], total[0] / 3, rtol=1e-2)


def test_more_neighbours_than_images_uses_all():
    detector, variables, _ = fitted("spade", count=2, num_neighbors=50)
    same, _, _ = fitted("spade", count=2, num_neighbors=2)
    array = images(2, 1).images.astype(np.float32) / 255
    np.testing.assert_allclose(
        detector.apply(variables, array).score, same.apply(variables, array).score, rtol=1e-5
    )


def test_layer3_stands_in_where_layer4_is_not_in_the_weights():
    detector, _, _ = fitted("spade")
    fallback = detector.config.without_missing_layers()
    assert fallback.pooled_layer == "layer3"
    assert fallback.without_missing_layers() is None
