"""The matrices of Winograd's minimal filtering F(4x4, 3x3) and F(4x4, 5x5), for `ops.winograd`.

Lavin, Gray, arXiv 1509.09308, section 4, by the method of Toom and Cook: a kernel of k values and a
window of `w = 3 + k` are polynomials, whose product is known from its values at w points. Another
scale of a row of B^T and the inverse one in the same row of G make no difference.
"""

from typing import NamedTuple

import numpy as np

TILE = 4  # outputs a side


class Transforms(NamedTuple):
    """The paper's B^T, G and A^T for a size of kernels: of windows, kernels and outputs."""

    window: np.ndarray  # [w, w]
    kernel: np.ndarray  # [w, k]
    output: np.ndarray  # [TILE, w]

    @property
    def points(self) -> int:
        """Number of matrix products."""
        return len(self.window) ** 2

    @property
    def border(self) -> int:
        """Rows and columns of zeros around the map."""
        return self.kernel.shape[1] // 2


# Of the points 0, 1, -1, 2, -2 and infinity.
_THREE = Transforms(
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
)
# Of the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.
_FIVE = Transforms(
    np.array(
        [
            [-1, 0, 5.25, 0, -5.25, 0, 1, 0],
            [0, 1, 1, -4.25, -4.25, 1, 1, 0],
            [0, -1, 1, 4.25, -4.25, -1, 1, 0],
            [0, 0.5, 0.25, -2.5, -1.25, 2, 1, 0],
            [0, -0.5, 0.25, 2.5, -1.25, -2, 1, 0],
            [0, 2, 4, -2.5, -5, 0.5, 1, 0],
            [0, -2, 4, 2.5, -5, -0.5, 1, 0],
            [0, -1, 0, 5.25, 0, -5.25, 0, 1],
        ]
    ),
    np.array(
        [
            [-1, 0, 0, 0, 0],
            [-2 / 9, -2 / 9, -2 / 9, -2 / 9, -2 / 9],
            [-2 / 9, 2 / 9, -2 / 9, 2 / 9, -2 / 9],
            [1 / 90, 1 / 45, 2 / 45, 4 / 45, 8 / 45],
            [1 / 90, -1 / 45, 2 / 45, -4 / 45, 8 / 45],
            [32 / 45, 16 / 45, 8 / 45, 4 / 45, 2 / 45],
            [32 / 45, -16 / 45, 8 / 45, -4 / 45, 2 / 45],
            [0, 0, 0, 0, 1],
        ]
    ),
    np.array(
        [
            [1, 1, 1, 1, 1, 1, 1, 0],
            [0, 1, -1, 2, -2, 0.5, -0.5, 0],
            [0, 1, 1, 4, 4, 0.25, 0.25, 0],
            [0, 1, -1, 8, -8, 0.125, -0.125, 1],
        ]
    ),
)
BY_SIDE = {3: _THREE, 5: _FIVE}  # of the kernel
BY_POINTS = {found.points: found for found in BY_SIDE.values()}  # of the products
