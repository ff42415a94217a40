"""Digests of arrays, computed at memory speed, to detect damaged files.

They protect against accidents only: whoever changes a file on purpose can change its digest too.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ROWS, COLUMNS = 256, 512  # of a block, as a matrix of 64-bit words
BLOCK = 8 * ROWS * COLUMNS  # bytes: 1 MiB, which stays in a core's cache between the two sums
_SIZE = 16  # bytes of a digest
_THREADS = 4  # more cores are no faster: the memory is the limit
_TASK = 16  # blocks that a thread takes at a time


def digest_of_array(array: np.ndarray) -> str:
    """32 hexadecimal digits that change when a value, the type or the shape of an array does.

    BLAKE2b of the type, the shape, the sums of the columns and of the rows of each whole block
    (unsigned words, modulo 2**64), and of the bytes behind the last whole block. One to three
    changed words of a block always change a sum. The result does not depend on the number of
    threads.

    Args:
      array: Of any type of fixed size and any shape; in memory order it is read without a copy.
    """
    array = np.asarray(array)
    head = f"{array.dtype.name}{list(array.shape)}"
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return _digest(head.encode(), data)


def _digest(head: bytes, data: np.ndarray) -> str:
    count = len(data) // BLOCK
    digest = hashlib.blake2b(head, digest_size=_SIZE)
    digest.update(_sums(data[: count * BLOCK]).data)
    digest.update(data[count * BLOCK :].data)
    return digest.hexdigest()


def _sums(data: np.ndarray) -> np.ndarray:
    """Sums of columns, then of rows, of whole blocks: uint64 `[n, COLUMNS + ROWS]`."""
    words = data.view("<u8").reshape(-1, ROWS, COLUMNS)
    found = np.empty((len(words), COLUMNS + ROWS), "<u8")

    def add(start: int) -> None:
        for number in range(start, min(start + _TASK, len(words))):
            np.add.reduce(words[number], axis=0, out=found[number, :COLUMNS])
            np.add.reduce(words[number], axis=1, out=found[number, COLUMNS:])

    starts = range(0, len(words), _TASK)
    if len(starts) > 1:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(add, starts))
    else:
        for start in starts:
            add(start)
    return found
