"""Our frozen backbone alone, as scoring computes it: kernels transformed, the work shared."""

import contextlib
from collections.abc import Callable

import jax
import numpy as np

from imvad_jax.benchmarks.workloads import Subject
from imvad_jax.ops import rows
from imvad_jax.training.job import as_float
from imvad_jax.training.parallel import Parallel
from imvad_jax.training.transformed import merged, shared_outputs, with_transformed_backbone


def frozen_backbone(subject: Subject, size: int) -> Callable[[np.ndarray], dict[str, jax.Array]]:
    """What computes the feature maps of `size` uint8 images `[size, S, S, 3]`.

    As in `Scorer`, the devices share few images' rows and otherwise the images; a number that they
    cannot share is one device's. Each map is `[size, H, W, C]`, or of several devices
    `[devices, size / devices, H, W, C]`.
    """
    parallel, detector = subject.parallel.here(), subject.detector
    by_rows = detector.by_rows and parallel.shares_rows(size, all_of_it=False)
    if size % parallel.count and not by_rows:
        parallel = Parallel(parallel.local[:1])

    def step(variables, parts, images):
        with rows.shared() if by_rows else contextlib.nullcontext():
            return detector.apply(merged(variables, parts), as_float(images), method="features")

    compiled = parallel.compile(step, split=(False, True, True), joined=by_rows)
    variables = {"backbone": subject.variables["backbone"]}
    placed = parallel.replicate(with_transformed_backbone(detector, variables, parallel))
    parts = shared_outputs(detector, variables, parallel, "features") if by_rows else {}
    put = parallel.repeat if by_rows else parallel.split
    return lambda images: compiled(placed, parts, put(images))
