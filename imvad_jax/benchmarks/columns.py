"""Numbers and tables of the benchmark, as text or as Markdown."""

from collections.abc import Sequence


def number(value: float | None, digits: int = 3) -> str:
    """A figure with at least so many significant digits, never in powers of ten; `-` for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    places = digits - 1
    size = abs(value)
    while size >= 10 and places > 0:
        size, places = size / 10, places - 1
    while size < 1 and places < 9:
        size, places = size * 10, places + 1
    return f"{value:.{places}f}"


def label_of(record: dict) -> str:
    """A method with the preset, the backbone and the overrides that were measured."""
    backbone = record["config"].get("backbone", "none")
    names = [record["preset"], *([backbone] if backbone != "none" else [])]
    overrides = record["overrides"].items()
    names += [f"{key}={value}" for key, value in overrides if key != "backbone"]
    return f"{record['method']} ({', '.join(names)})"


def grid(head: Sequence[str], rows: list[list[str]], markdown: bool, left: int = 1) -> str:
    """A table; the first `left` columns are set to the left, the others to the right."""
    lines = [list(head), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = [
        [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))]
        for line in lines
    ]
    if markdown:
        rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])
    text = ["  ".join(line).rstrip() for line in padded]
    return "\n".join([text[0], "-" * len("  ".join(padded[0])), *text[1:]])
