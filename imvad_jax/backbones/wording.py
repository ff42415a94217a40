"""Shortens text from a file for messages: bounded length, one line."""

from collections.abc import Sequence


def shown(text: str, most: int = 80) -> str:
    """The first `most` characters of `text`; what a terminal would obey is escaped."""
    cut = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text[:most]
    )
    return f"{cut}..." if len(text) > most else cut


def shape_text(shape: Sequence[int]) -> str:
    """A shape as Python writes it, or the number of its dimensions where they are many."""
    return str(tuple(shape)) if len(shape) <= 8 else f"of {len(shape)} dimensions"
