"""Batches of one static shape: the last one is padded, and a mask says which rows are real."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from imvad_jax.data.decode import EVERY_DEPTH, Reader

Numbers = Sequence[int] | np.ndarray  # of images


class Batch(NamedTuple):
    """One batch. Padding rows hold zeros, `valid` False and index -1."""

    images: np.ndarray  # uint8 [B, H, W, 3]
    valid: np.ndarray  # bool [B]
    # int32 [B], the image's number in its source
    index: np.ndarray  # pyright: ignore[reportIncompatibleMethodOverride]


class Images(Protocol):
    """A sequence of decoded images, in memory or on disk."""

    def __len__(self) -> int: ...

    def batches(self, batch_size: int, order: Numbers | None = None) -> Iterator[Batch]:
        """Batches in the given order (file order by default); the last one is padded."""
        ...

    def take(self, numbers: Numbers) -> "Images":
        """The images of these numbers alone, in this order (of tiles: those of whole images)."""
        ...


def padded_order(count: int, batch_size: int, order: Numbers | None) -> np.ndarray:
    """Image numbers `[ceil(n / B) * B]`, int32; -1 marks padding."""
    numbers = np.arange(count) if order is None else np.asarray(order)
    padding = -len(numbers) % batch_size
    return np.concatenate([numbers, np.full(padding, -1)]).astype(np.int32)


class ArrayImages:
    """Images held in memory as uint8 `[N, H, W, C]`, C 1 (grey) or 3.

    `reader` says how they were read, where they come from files.
    """

    def __init__(self, images: np.ndarray, reader: Reader = EVERY_DEPTH):
        self.images, self.reader = images, reader

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        count, *shape = self.images.shape
        return f"ArrayImages({count} images, {' x '.join(map(str, shape))}, in memory)"

    def take(self, numbers):
        return ArrayImages(self.images[np.asarray(numbers, int)], self.reader)

    def batches(self, batch_size, order=None):
        for index in padded_order(len(self), batch_size, order).reshape(-1, batch_size):
            valid = index >= 0
            images = self.images[np.maximum(index, 0)]
            images[~valid] = 0
            # Grey images become RGB here, so that all categories share one compiled program.
            if images.shape[-1] == 1:
                images = np.repeat(images, 3, axis=-1)
            yield Batch(images, valid, index)


def in_memory(images: object) -> ArrayImages:
    """Images that are known to lie in memory."""
    assert isinstance(images, ArrayImages), f"{type(images).__name__} are not in memory"
    return images
