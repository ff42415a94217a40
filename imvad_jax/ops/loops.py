"""Loops that save memory, and that can be left out for runtimes without loops."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax

_UNROLLED = contextvars.ContextVar("unrolled", default=False)


@contextlib.contextmanager
def unrolled() -> Iterator[None]:
    """What is traced within has no loops: the same results, memory that grows with the batch.

    For converters that have no loops. Functions that `jax.jit` has traced before keep theirs.
    """
    token = _UNROLLED.set(True)
    try:
        yield
    finally:
        _UNROLLED.reset(token)


def fold(count: int, step: Callable[[Any, Any], Any], initial: Any) -> Any:
    """`carry = step(i, carry)` for each i below `count`, which is known when it is traced."""
    if not _UNROLLED.get():
        return lax.fori_loop(0, count, step, initial)
    for i in range(count):
        initial = step(i, initial)
    return initial


def each(function: Callable[[Any], Any], rows: Any) -> Any:
    """`function` of every row of a pytree of arrays `[N, ...]`, one row after the other."""
    return jax.vmap(function)(rows) if _UNROLLED.get() else lax.map(function, rows)
