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
    """Code traced in the context has no loops: same results, but memory grows with the batch.

    This is for converters without loops. Functions that `jax.jit` has traced before keep theirs.
    """
    token = _UNROLLED.set(True)
    try:
        yield
    finally:
        _UNROLLED.reset(token)


def fold(count: int, step: Callable[[Any, Any], Any], initial: Any) -> Any:
    """Runs `carry = step(i, carry)` for each i below `count`, which must be a static number."""
    if not _UNROLLED.get():
        return lax.fori_loop(0, count, step, initial)
    for i in range(count):
        initial = step(i, initial)
    return initial


def each(function: Callable[[Any], Any], rows: Any) -> Any:
    """Applies `function` to every row of a pytree of arrays `[N, ...]`, one row at a time."""
    return jax.vmap(function)(rows) if _UNROLLED.get() else lax.map(function, rows)
