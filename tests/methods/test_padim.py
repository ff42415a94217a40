"""PaDiM against its definition in float64."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from imvad_jax.errors import UserError
from imvad_jax.methods.padim import PaDiM, PaDiMConfig
from imvad_jax.ops import resample
from tests.methods.small import apply, fitted, images


def embed(detector, variables, array):
    return np.asarray(
        apply(detector, variables, array.images.astype(np.float32) / 255, method="embed"),
        np.float64,
    )


def test_map_is_the_mahalanobis_distance_per_position():
    detector, variables, _ = fitted("padim", count=24)
    train, test = embed(detector, variables, images(24)), embed(detector, variables, images(3, 1))
    positions, dim = train.shape[1:]
    expected = np.zeros((3, positions))
    for p in range(positions):
        covariance = np.cov(train[:, p].T) + 0.01 * np.eye(dim)
        difference = test[:, p] - train[:, p].mean(0)
        squared = np.einsum("nd,de,ne->n", difference, np.linalg.inv(covariance), difference)
        expected[:, p] = np.sqrt(squared)
    side = int(positions**0.5)
    maps = resample.upsample_and_smooth(expected.reshape(3, side, side), (64, 64), 4.0)
    prediction = apply(detector, variables, images(3, 1).images.astype(np.float32) / 255)
    np.testing.assert_allclose(prediction.anomaly_map, maps, rtol=1e-3)
    np.testing.assert_allclose(prediction.score, np.max(maps, (1, 2)), rtol=1e-3)


def test_channels_are_seeded_distinct_and_in_range():
    detector = PaDiM(PaDiMConfig(backbone="resnet18", crop_size=0))
    assert (detector.dim, detector.total_channels, detector.grid) == (100, 448, (64, 64))
    keys = (jax.random.key(seed) for seed in (0, 1))
    draws = [detector.apply({}, key, method="init_memory")["channels"] for key in keys]
    for draw in draws:
        assert len(set(draw.tolist())) == 100 and int(draw.max()) < 448
    assert draws[0].tolist() != draws[1].tolist()
    wide = PaDiM(PaDiMConfig())
    assert (wide.dim, wide.total_channels, wide.grid) == (550, 1792, (56, 56))


def test_channels_of_the_common_code():
    # The first of Python's random.seed(1024), random.sample(range(448), 100) and (1792), 550.
    for backbone, total, count, first in (
        ("resnet18", 448, 100, [408, 9, 247, 435]),
        ("wide_resnet50_2", 1792, 550, [1632, 39, 990, 1740]),
    ):  # fmt: skip
        detector = PaDiM(PaDiMConfig(backbone=backbone, channels="padim_1024"))
        draws = [
            detector.apply({}, jax.random.key(seed), method="init_memory")["channels"].tolist()
            for seed in (0, 1)
        ]
        assert draws[0] == draws[1] == sorted(set(draws[0]))
        assert len(draws[0]) == count and max(draws[0]) < total
        assert set(first) <= set(draws[0])
    with pytest.raises(UserError, match="channels: unknown value 'padim'"):
        PaDiMConfig(channels="padim")


PEAK = """
import resource, sys
import numpy as np
from tests.methods.small import make
from imvad_jax.data.batches import Batch, padded_order
from imvad_jax.training.fit import fit
from imvad_jax.training.parallel import Parallel

class Stream:  # images made as they are asked for, so that only the fit can hold them
    def __init__(self, count): self.count = count
    def __len__(self): return self.count
    def batches(self, size, order=None):
        rng = np.random.default_rng(0)
        for index in padded_order(self.count, size, order).reshape(-1, size):
            yield Batch(rng.integers(0, 256, (size, 64, 64, 3), np.uint8), index >= 0, index)

detector, variables = make("padim")
fit(detector, variables, Stream(int(sys.argv[1])), Parallel())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_of_a_fit_does_not_grow_with_the_number_of_images():
    def peak_kib(count):
        run = subprocess.run(
            [sys.executable, "-c", PEAK, str(count)], capture_output=True, text=True, check=True
        )
        return int(run.stdout.split()[-1])

    few, many = peak_kib(64), peak_kib(4096)
    # The decoded images alone would add 48 MiB, their features 600 MiB.
    assert many - few < 24 * 1024


@pytest.mark.parametrize("layers", [("layer2",), ("layer1", "layer2", "layer3")])
def test_layers_are_laid_on_the_grid_of_the_first(layers):
    detector, variables, _ = fitted("padim", layers=",".join(layers), num_channels=20)
    batch = images(2).images.astype(np.float32) / 255
    maps = apply(detector, variables, batch, outputs=layers, method="features")
    stacked = np.concatenate(
        [np.repeat(np.repeat(m, 2**i, 1), 2**i, 2) for i, m in enumerate(maps.values())], -1
    )
    chosen = stacked[..., np.asarray(variables["memory"]["channels"])]
    found = embed(detector, variables, images(2))
    np.testing.assert_allclose(found, chosen.reshape(found.shape), rtol=1e-6)
