"""Sums of several arrays, typed as what they are."""

from collections.abc import Iterable
from typing import cast

from jax import Array


def total(arrays: Iterable[Array]) -> Array:
    """Python's `sum` of one array or more, of shapes that go together."""
    return cast(Array, sum(arrays))
