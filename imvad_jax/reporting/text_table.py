"""Writes tables as text: columns for a terminal, or Markdown."""

import enum
from collections.abc import Callable, Sequence

from imvad_jax.errors import escaped


class Form(enum.Enum):
    """How a table is drawn."""

    PLAIN = "columns of equal width"
    TEXT = "columns of equal width, a rule below the head"
    TOTAL = "as TEXT, a rule above the last row, too"
    MARKDOWN = "Markdown whose columns are of equal width in the source as well"
    COMPACT = "Markdown whose cells are as wide as their text"

    @property
    def markdown(self) -> bool:
        """Whether it is Markdown."""
        return self in (Form.MARKDOWN, Form.COMPACT)


def markdown_cell(text: str) -> str:
    """Text that breaks neither a table nor the page, and makes no link."""
    text = escaped(" ".join(str(text).split()))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]&#40;")
    return text.replace("\\|", "&#92;|").replace("|", r"\|")


def format_rows(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    form: Form = Form.TEXT,
    *,
    left: int = 1,
    cell: Callable[[str], str] = markdown_cell,
) -> str:
    """A table as text, without a line break at its end.

    Args:
      head: The names of the columns; taken as they are.
      rows: The cells, as many in each row.
      form: How it is drawn.
      left: So many columns are set to the left, the others to the right.
      cell: What a cell becomes in Markdown.
    """
    if form.markdown:
        rows = [[cell(text) for text in row] for row in rows]
    else:
        rows = [[escaped(text) for text in row] for row in rows]
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if form is Form.COMPACT:
        widths = [3 if number < left else 4 for number in range(len(head))]  # of the rules
        padded = lines
    else:
        padded = [
            [text.ljust(w) if n < left else text.rjust(w)
             for n, (text, w) in enumerate(zip(line, widths, strict=True))]
            for line in lines
        ]  # fmt: skip
    if form.markdown:
        rules = ["-" * w if n < left else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rules, *padded[1:]])
    text, rule = ["  ".join(line).rstrip() for line in padded], "-" * len("  ".join(padded[0]))
    if form is Form.TOTAL:
        text.insert(len(text) - 1, rule)
    if form is not Form.PLAIN:
        text.insert(1, rule)
    return "\n".join(text)
