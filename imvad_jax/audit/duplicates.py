"""Images that are there twice: equal files, equal pixels, and near copies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

BITS = 6  # of 64 in which the perceptual hashes of near copies differ at most
SHARE = 0.25  # of the usual distance to a neighbour, which near copies have at most
_NEIGHBOUR = 5  # whose distance is usual: nearer ones may be copies themselves
_MOST = 500  # images that the usual distance is taken from
_BLOCK = 512  # rows compared at a time
SAME_FILE, SAME_PIXELS, NEAR = "the same file", "the same pixels", "nearly the same"


class Copies(NamedTuple):
    """Images of one kind of equality, by number, ascending; two at least."""

    kind: str  # SAME_FILE, SAME_PIXELS or NEAR
    numbers: tuple[int, ...]


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """`imagehash.phash` of grey thumbnails: uint64 `[N]` from uint8 `[N, 32, 32]`.

    The signs of the 8 x 8 lowest frequencies of the cosine transform against their median.

    Raises:
      ImportError: imagehash is not installed.
    """
    import imagehash

    bits = [imagehash.phash(Image.fromarray(one)).hash.ravel() for one in thumbnails]
    if not bits:
        return np.zeros(0, np.uint64)
    return np.packbits(np.array(bits), axis=1).view(">u8").ravel().astype(np.uint64)


def find_copies(
    contents: Sequence[str],
    digests: Sequence[str],
    hashes: np.ndarray | None,
    thumbnails: np.ndarray,
) -> list[Copies]:
    """The groups of copies, the surest kind first; a pair is named by its surest kind only.

    Near copies have hashes that differ in `BITS` at most, and thumbnails that are also much nearer
    to each other (root mean square, without the mean) than images of this set usually are:
    `SHARE` of the median distance to the fifth nearest neighbour. In sets where all parts lie in
    one place hashes alone would take different parts for copies.

    Args:
      contents: N texts, equal for equal files; empty: unlike any other.
      digests: N texts, equal for equal pixels.
      hashes: uint64 `[N]`; None: near copies are not looked for.
      thumbnails: uint8 `[N, 32, 32]`.
    """
    found, known = [], set()
    for kind, texts in ((SAME_FILE, contents), (SAME_PIXELS, digests)):
        groups: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            if text:
                groups.setdefault(text, []).append(number)
        for group in groups.values():
            if len(group) > 1 and tuple(group) not in known:
                known.add(tuple(group))
                found.append(Copies(kind, tuple(group)))
    if hashes is not None and len(hashes) > 2:
        texts = {text: number for number, text in reversed(list(enumerate(digests)))}
        firsts = np.array(sorted(texts.values()))  # one of each image
        for group in _near(hashes[firsts], thumbnails[firsts]):
            found.append(Copies(NEAR, tuple(firsts[group].tolist())))
    return found


def _near(hashes: np.ndarray, thumbnails: np.ndarray) -> list[np.ndarray]:
    """Groups of numbers of near copies among different images."""
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    vectors -= vectors.mean(1, keepdims=True)
    limit = SHARE * _usual_distance(vectors)
    squares = (vectors**2).sum(1)
    rows, columns = [], []
    for start in range(0, len(hashes), _BLOCK):
        some = slice(start, start + _BLOCK)
        near = np.bitwise_count(hashes[some, None] ^ hashes[None, :]) <= BITS
        apart = squares[some, None] + squares[None, :] - 2 * vectors[some] @ vectors.T
        near &= apart <= limit**2 * vectors.shape[1]
        row, column = np.nonzero(np.triu(near, start + 1))
        rows.append(row + start)
        columns.append(column)
    return _components(np.concatenate(rows), np.concatenate(columns), len(hashes))


def _usual_distance(vectors: np.ndarray) -> float:
    """The median root mean square distance to the fifth nearest neighbour (or the farthest)."""
    some = vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), _MOST)).astype(int)]
    squares = (some**2).sum(1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * some @ some.T, 0)
    rank = min(_NEIGHBOUR, len(some) - 1)  # the nearest is the image itself
    return float(np.median(np.sqrt(np.partition(apart, rank, axis=1)[:, rank] / some.shape[1])))


def _components(rows: np.ndarray, columns: np.ndarray, count: int) -> list[np.ndarray]:
    if not len(rows):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    _, labels = connected_components(pairs, directed=False)
    involved = np.unique(labels[rows])
    return [np.flatnonzero(labels == label) for label in involved]
