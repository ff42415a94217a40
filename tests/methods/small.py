"""Small fitted detectors for the tests: smoke presets on random ResNet weights."""

import dataclasses
import functools

import jax
import numpy as np

from imvad_jax import backbones, methods, presets
from imvad_jax.backbones.weights import load_weights
from imvad_jax.data.batches import ArrayImages
from imvad_jax.methods.base import TrainedConfig
from imvad_jax.training.fit import fit, init_variables
from imvad_jax.training.parallel import Parallel


def images(count: int, seed: int = 0, size: int = 64) -> ArrayImages:
    """Random uint8 images `[count, size, size, 3]`, smooth enough to look like something."""
    small = np.random.default_rng(seed).uniform(0, 255, (count, 8, 8, 3))
    return ArrayImages(np.kron(small, np.ones((1, size // 8, size // 8, 1))).astype(np.uint8))


def make(method: str, weights: str = "random", **overrides) -> tuple[methods.Detector, dict]:
    """A detector of the smoke preset and its variables before the fit."""
    text = {name: str(value) for name, value in overrides.items()}
    detector = methods.make(method, presets.resolve(method, "smoke", text))
    backbone = None
    if detector.outputs:
        spec = backbones.get(detector.config.backbone)
        backbone = load_weights(spec, weights, detector.outputs).variables
    return detector, init_variables(detector, backbone, seed=0)


def briefly(detector: methods.Detector, variables: dict, epochs: int = 1):
    """The same, to be trained for so many epochs if it is trained."""
    if isinstance(detector.config, TrainedConfig):
        config = dataclasses.replace(detector.config, epochs=epochs)
        detector = detector.clone(config=config)
    return detector, variables


@functools.lru_cache(maxsize=32)
def fitted_once(method: str):
    """`fitted(method)`, shared by all tests that only look at it."""
    return fitted(method)


def fitted(method: str, count: int = 20, devices: int = 2, seed: int = 0, **overrides):
    """A detector fitted on `count` random images: the detector, its variables, the devices.

    It is trained for one epoch if it is trained: for tests to which it does not matter how well.
    """
    parallel = Parallel(jax.local_devices()[:devices])
    detector, variables = briefly(*make(method, **overrides))
    return detector, fit(detector, variables, images(count), parallel, seed), parallel


def apply(module, *arguments, **options):
    """`module.apply` as one compiled program, where each operation would be one of its own."""
    return _compiled(module, tuple(sorted(options.items())))(*arguments)


@functools.lru_cache(maxsize=64)
def _compiled(module, options):
    return jax.jit(functools.partial(module.apply, **dict(options)))
