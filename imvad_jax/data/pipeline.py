"""The tf.data pipeline: image files to batches, decoded in parallel by Pillow, prefetched."""

import contextlib
import os
import sys
from collections.abc import Sequence

import numpy as np

from imvad_jax.data.batches import Batch, padded_order
from imvad_jax.data.decode import Geometry, load_image
from imvad_jax.errors import UserError

CACHE = "or bring a decoded cache and name it by --cache_dir"


@contextlib.contextmanager
def _quiet():
    """Sends file descriptor 2 nowhere: TensorFlow greets there before it reads any setting."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def load_tensorflow(use: str = "decoding image files", otherwise: str = CACHE):
    """The module `tensorflow`, imported quietly and kept off accelerators.

    Raises:
      UserError: it is not installed; the message says what the `use` was, and what `otherwise`.
    """
    try:
        with _quiet():
            import tensorflow as tf

            tf.config.set_visible_devices([], "GPU")  # the accelerator belongs to JAX
            tf.constant(0)  # starts the runtime, which speaks once more
    except ImportError as error:
        raise UserError(
            f"{use} needs TensorFlow (pip install tensorflow-cpu), which is not installed here "
            f"({error}); {otherwise}"
        ) from None
    return tf


class FileImages:
    """Images on disk, decoded as they are read. Memory does not grow with their number."""

    def __init__(self, paths: Sequence[str], geometry: Geometry):
        self.paths = list(paths)
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, numbers):
        """The images of these numbers alone."""
        return FileImages([self.paths[number] for number in numbers], self.geometry)

    def batches(self, batch_size, order=None):
        """Yields batches in order.

        Raises:
          UserError: an image cannot be read; it is named.
        """
        tf = load_tensorflow()
        side = self.geometry.crop

        def decode(index):
            image = np.zeros((side, side, 3), np.uint8)
            if index < 0:
                return image, b""
            try:
                # Grey files broadcast to three channels.
                image[:] = load_image(self.paths[index], self.geometry)
                return image, b""
            except UserError as error:  # carried as data: tf.data would bury it in a traceback
                return image, str(error).encode()

        def load(index):
            image, error = tf.numpy_function(decode, [index], [tf.uint8, tf.string])
            return tf.ensure_shape(image, (side, side, 3)), tf.ensure_shape(error, ()), index

        dataset = tf.data.Dataset.from_tensor_slices(padded_order(len(self), batch_size, order))
        dataset = dataset.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
        dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2)
        for images, errors, index in dataset.as_numpy_iterator():
            for message in errors:
                if message:
                    raise UserError(message.decode())
            yield Batch(images, index >= 0, index)
