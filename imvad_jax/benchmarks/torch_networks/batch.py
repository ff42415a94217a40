"""The batch that all compared steps use, and the random draws of our step for it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from imvad_jax.benchmarks.torch_networks.base import Network
from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.training import gradient
from imvad_jax.training.job import as_float


def first_key(subject: Subject) -> Array:
    """The key of the first step of a training."""
    return jax.random.fold_in(gradient.training_key(subject.seed), 0)


def drawing(subject: Subject, kind: type[Network]) -> Callable:
    """What our step draws of `(variables, images, key)`."""

    def draw(variables, images, key):
        return subject.detector.apply(
            variables, as_float(images), method=kind.draw, rngs={"noise": key}
        )

    return draw


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch in host memory, what our first step draws for it, and its loss."""

    images: np.ndarray  # uint8 [B, H, W, 3]
    drawn: dict[str, np.ndarray]
    loss: float

    @classmethod
    def of(cls, subject: Subject, kind: type[Network]) -> "Batch":
        """The first images, and what the first step of a training does with them."""
        detector, key = subject.detector, first_key(subject)
        order = np.resize(np.arange(len(subject.images)), detector.config.batch_size)
        images = next(iter(subject.images.take(order).batches(len(order)))).images

        def loss(variables, images, key):
            (found, _), _ = detector.apply(
                variables, as_float(images), method="image_loss", mutable=["batch_stats"],
                rngs={"noise": key},
            )  # fmt: skip
            return found

        drawn = jax.jit(drawing(subject, kind))(subject.variables, images, key)
        expected = float(jax.jit(loss)(subject.variables, images, key))
        return cls(images, on_host(drawn), expected)

    def inputs(self, subject: Subject, kept: bool) -> dict[str, Any]:
        """What a step of PyTorch takes: `images`, or `kept`, and what was `drawn`."""
        drawn = dict(self.drawn)
        images = drawn.pop("images", self.images)
        if not kept:
            return {"images": images, "drawn": drawn}
        frozen_part = gradient.fixed_part(subject.variables)

        def features(variables, images):
            return subject.detector.apply(variables, as_float(images), method="frozen_features")

        return {"kept": on_host(jax.jit(features)(frozen_part, self.images)), "drawn": drawn}


def on_host(tree: Any) -> Any:
    """Arrays of JAX as numpy's own, which PyTorch may share."""
    return jax.tree.map(np.array, jax.device_get(tree))


def drawing_call(subject: Subject, kind: type[Network], batch: Batch) -> Callable[[int], None]:
    """A call that draws for the batch so many times, on the devices of a training step."""
    parallel = subject.parallel.dividing(len(batch.images))
    draw = parallel.compile(drawing(subject, kind), split=(False, True, False))
    fixed = parallel.replicate(gradient.fixed_part(subject.variables))
    key = first_key(subject)

    def call(count):
        found = None
        for _ in range(count):
            found = draw(fixed, parallel.split(batch.images), key)
        jax.block_until_ready(found)

    return call
