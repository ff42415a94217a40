"""Estimates the memory of a run before it starts; a run that cannot fit is refused."""

import jax

from imvad_jax.data.batches import ArrayImages
from imvad_jax.data.category import CategoryData
from imvad_jax.data.tiled import TiledImages
from imvad_jax.errors import UserError
from imvad_jax.methods import Detector
from imvad_jax.model import Model
from imvad_jax.training.features import features_bytes
from imvad_jax.training.loops import DEVICE, bytes_on_device
from imvad_jax.training.maps import maps_bytes
from imvad_jax.training.parallel import Parallel, available_bytes
from imvad_jax.training.transformed import backbone_bytes

PROGRAM_BYTES = 600 * 2**20  # an allowance for Python, JAX, TensorFlow and compiled programs


def estimate(
    detector: Detector,
    data: CategoryData,
    parallel: Parallel,
    pictures: dict | None = None,
    *,
    loop: str | None = None,
    folds: int = 0,
) -> dict[str, int]:
    """Bytes by purpose that fitting and scoring hold at their peak.

    `pictures`: arrays that the training is given besides the good images; every device has a copy.
    `loop`: which one takes the steps of a training, `host` or `device`; None where there is none.
    `folds`: number of folds that set the threshold.
    """
    decoded = sum(
        images.images.nbytes
        for images in (data.train, data.test, data.held_out)
        if isinstance(images, ArrayImages)
    )
    pictures_decoded = max(
        images.decoded_bytes if isinstance(images, TiledImages) else 0
        for images in (data.train, data.test)
    )

    def values(images) -> int:
        if isinstance(images, TiledImages):
            return images.map_values
        return len(images or ()) * data.geometry.crop**2

    # The maps are held once as scored and about twice more while the metrics are computed.
    maps = max(3 * values(data.test), values(data.held_out)) * 4
    return {
        "program": PROGRAM_BYTES,
        "decoded images": decoded + pictures_decoded,
        "anomaly maps": maps,
        "pictures": sum(x.nbytes for x in jax.tree.leaves(pictures)) * (1 + parallel.count),
        "kept features": kept_features_bytes(detector, len(data.train)),
        "features for the folds": _for_folds(detector, data, folds),
        "images on the devices": _on_the_devices(detector, data, parallel, loop),
        "transformed kernels": _transformed(detector, parallel),
        **detector.memory_estimate(len(data.train), parallel.count),
    }


def pictures_of(model: Model) -> dict:
    """The arrays that the training of a model is given besides the good images."""
    return {k: v for k, v in model.variables.items() if k in model.config.picture_dirs}


def check_fit(
    model: Model,
    data: CategoryData,
    parallel: Parallel,
    *,
    loop: str | None = None,
    folds: int = 0,
) -> str:
    """What fitting and scoring a model needs and what there is, as text. Raises UserError."""
    parts = estimate(model.detector, data, parallel, pictures_of(model), loop=loop, folds=folds)
    return check(parts, available_bytes(parallel.local[0]))


def _on_the_devices(
    detector: Detector, data: CategoryData, parallel: Parallel, loop: str | None
) -> int:
    """Bytes of the images that a loop on the devices takes: a copy on each of them, which on the
    CPU lie in one memory.
    """
    if loop != DEVICE:
        return 0
    device, training = parallel.local[0], parallel.dividing(detector.config.batch_size)
    copies = training.count if device.platform == "cpu" else 1
    return copies * (bytes_on_device(detector, data.train) or 0)


def _for_folds(detector: Detector, data: CategoryData, folds: int) -> int:
    """Bytes of the maps of all images, which folds share; tiles are computed anew in each."""
    tiled = isinstance(data.train, TiledImages)
    return maps_bytes(detector, len(data.train)) if folds and not tiled else 0


def _transformed(detector: Detector, parallel: Parallel) -> int:
    """Bytes of fixed kernels made ready for use, of which each device has a copy."""
    if parallel.local[0].platform != "cpu":
        return 0
    return parallel.count * backbone_bytes(detector.compile_key())


def kept_features_bytes(detector: Detector, images: int) -> int:
    """Bytes of what a training with `cache_features` keeps of all images."""
    kept = getattr(detector.config, "cache_features", False)
    return features_bytes(detector, images) if kept else 0


def check(parts: dict[str, int], available: int | None) -> str:
    """The estimate as text.

    Raises:
      UserError: more is needed than there is, with the largest part and the flags to turn.
    """
    total = sum(parts.values())
    largest = max(parts, key=lambda name: parts[name])
    have = f"{gib(available)} available" if available is not None else "available: unknown"
    if available is not None and total > available:
        raise UserError(
            f"this run needs about {gib(total)} of memory and {gib(available)} are available; the "
            f"largest part is '{largest}' with {gib(parts[largest])}. Lower --image_size, "
            "--batch_size or --num_devices, or (padim) --num_channels, (patchcore) "
            "--coreset_ratio, --patches_per_image or --embedding_dim, or take a smaller --backbone"
        )
    details = ", ".join(f"{name} {gib(size)}" for name, size in parts.items() if size >= 2**26)
    return f"memory: about {gib(total)} needed, {have} ({details})"


def check_program(temporary: int, parallel: Parallel) -> None:
    """Raises UserError if a compiled program needs more than there is, before it runs.

    `temporary`: bytes that it holds while it runs, of each device.
    """
    device = parallel.local[0]
    needed = temporary * (parallel.count if device.platform == "cpu" else 1)
    available = available_bytes(device)
    if available is not None and needed > available:
        raise UserError(f"needs {gib(needed)} of memory, {gib(available)} are available")


def gib(size: int) -> str:
    """Bytes as text in GiB."""
    return f"{size / 2**30:.2f} GiB"
