"""Chooses the training loop: on the host or on the devices."""

from imvad_jax.data.batches import ArrayImages, Images
from imvad_jax.errors import UserError, choose
from imvad_jax.methods.base import Detector
from imvad_jax.training import hosts
from imvad_jax.training.features import features_bytes, rounded_up
from imvad_jax.training.parallel import Parallel, available_bytes

HOST, DEVICE, AUTO = "host", "device", "auto"
LOOPS = (AUTO, HOST, DEVICE)


def bytes_on_device(detector: Detector, images: Images) -> int | None:
    """Bytes per device that the device loop needs: all images, or their cached features.

    None if they are not completely in memory: files that are read at each pass, and tiles.
    """
    if detector.config.cache_features:
        return features_bytes(detector, rounded_up(len(images)))
    if not isinstance(images, ArrayImages):
        return None
    return rounded_up(len(images)) * detector.config.input_size**2 * 3


def choose_loop(
    wanted: str,
    detector: Detector,
    images: Images,
    parallel: Parallel,
    *,
    needed: int | None = None,
) -> str:
    """Returns `host` or `device`; `auto` is decided by the following rule.

    On an accelerator the device loop is used if all images are in memory and fit there beside
    everything else. On the CPU the host loop is used: nothing is transferred, and XLA's loops gain
    nothing.

    Args:
      wanted: One of `LOOPS`.
      detector: With a gradient phase.
      images: To fit on.
      parallel: The devices of the training.
      needed: Bytes of all else; None: as the detector estimates its fit.

    Raises:
      UserError: The loop is unknown, or is `device` with images that are not in memory.
    """
    wanted = choose("--training_loop", wanted, LOOPS)
    if wanted == HOST:
        return HOST
    size = bytes_on_device(detector, images)
    if wanted == DEVICE:
        if size is None:
            raise UserError(
                "--training_loop=device: these images are not held in memory (tiles, or more than "
                "4 GiB decoded); expected host or auto, or --cache_features=True"
            )
        return DEVICE
    device = parallel.local[0]
    if device.platform == "cpu" or size is None:
        return HOST
    if needed is None:
        needed = sum(detector.memory_estimate(len(images), parallel.count).values())
    free = available_bytes(device)
    # All hosts take the same loop.
    return HOST if hosts.any_of(free is None or needed + size > free) else DEVICE
