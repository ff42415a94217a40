"""Numbers and labels of the benchmark's tables."""


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
