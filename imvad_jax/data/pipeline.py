"""The tf.data pipeline: image files to batches, decoded in parallel by Pillow, prefetched."""

import contextlib
import os
import sys
from collections.abc import Sequence

import numpy as np

from imvad_jax.data.batches import Batch, Numbers, padded_order
from imvad_jax.data.decode import EVERY_DEPTH, Geometry, Reader, to_array
from imvad_jax.errors import UserError, join_errors

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
    """Images on disk, decoded as they are read. Memory does not grow with their number.

    `remarks` gathers by number what the reader did to images that were decoded.
    """

    def __init__(self, paths: Sequence[str], geometry: Geometry, reader: Reader = EVERY_DEPTH):
        self.paths = list(paths)
        self.geometry = geometry
        self.reader = reader
        self.remarks: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        side = self.geometry.crop
        return f"FileImages({len(self)} images, {side} x {side}, decoded as they are read)"

    def take(self, numbers):
        """The images of these numbers alone."""
        return FileImages([self.paths[number] for number in numbers], self.geometry, self.reader)

    def take_remarks(self, numbers: Numbers) -> dict[int, str]:
        """The remarks on the images of these numbers, by their places among them."""
        kept = {int(number): place for place, number in enumerate(numbers)}
        return {kept[n]: text for n, text in self.remarks.items() if n in kept}

    def batches(self, batch_size, order=None, bad: dict[int, str] | None = None):
        """Yields batches in order.

        Args:
          bad: Takes up, by number, why images cannot be read; they are zeros then.

        Raises:
          UserError: without `bad`, images cannot be read; from the first of them on nothing more
            is yielded, and all are named.
        """
        errors = {} if bad is None else bad
        for batch, found in self._batches(batch_size, order):
            errors.update(found)
            if bad is not None or not errors:
                yield batch
        if bad is None and errors:
            raise UserError(join_errors([errors[number] for number in sorted(errors)]))

    def _batches(self, batch_size, order):
        """Yields each batch and, by number, the errors of its images."""
        tf = load_tensorflow()
        side = self.geometry.crop

        def decode(index):
            image = np.zeros((side, side, 3), np.uint8)
            if index < 0:
                return image, b""
            try:
                picture = self.reader.read(self.paths[index])
                if picture.remark:
                    self.remarks[int(index)] = picture.remark
                # Grey files broadcast to three channels.
                image[:] = to_array(picture.image, self.geometry)
                return image, b""
            except UserError as error:  # carried as data: tf.data would bury it in a traceback
                return image, error.text.encode()

        def load(index):
            image, error = tf.numpy_function(decode, [index], [tf.uint8, tf.string])
            return tf.ensure_shape(image, (side, side, 3)), tf.ensure_shape(error, ()), index

        dataset = tf.data.Dataset.from_tensor_slices(padded_order(len(self), batch_size, order))
        dataset = dataset.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
        dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(2)
        for images, errors, index in dataset.as_numpy_iterator():
            found = {int(n): text.decode() for n, text in zip(index, errors) if text}
            yield Batch(images, index >= 0, index), found
