"""Maps of the frozen backbone that are known before a method asks for them, while it is traced."""

import contextlib
import contextvars
from collections.abc import Iterator, Mapping, Sequence

from jax import Array

_GIVEN: contextvars.ContextVar[tuple[Array, Mapping[str, Array]] | None] = contextvars.ContextVar(
    "given maps", default=None
)


class OtherImages(Exception):
    """Found while tracing: a method needs features of other images, or of other layers."""


@contextlib.contextmanager
def given(images: Array, maps: Mapping[str, Array]) -> Iterator[None]:
    """Within the context, `Detector.features(images)` returns these maps `[B, h, w, C]` by name.

    Raises:
      OtherImages: features are requested of an array that is not `images` itself, or of a layer
        that is not among the maps.
    """
    token = _GIVEN.set((images, maps))
    try:
        yield
    finally:
        _GIVEN.reset(token)


def find(images: Array, outputs: Sequence[str]) -> dict[str, Array] | None:
    """The given maps of these images; None where none are given. Raises OtherImages."""
    found = _GIVEN.get()
    if found is None:
        return None
    known, maps = found
    if images is not known or not set(outputs) <= set(maps):
        raise OtherImages
    return {name: maps[name] for name in outputs}
