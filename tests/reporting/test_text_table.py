"""The writer of text tables, in every form."""

import pytest

from imvad_jax.reporting.text_table import Form, format_rows, markdown_cell

HEAD, ROWS = ("name", "of", "s"), [["a|b", "x", "10"], ["c", "<y>", "1.5"]]
FORMS = {
    Form.PLAIN: ["name  of     s", "a|b   x     10", "c     <y>  1.5"],
    Form.TEXT: ["name  of     s", "--------------", "a|b   x     10", "c     <y>  1.5"],
    Form.TOTAL: [
        "name  of     s", "--------------", "a|b   x     10", "--------------", "c     <y>  1.5",
    ],
    Form.MARKDOWN: [
        "| name | of     |   s |", "| ---- | ------ | --: |", r"| a\|b | x      |  10 |",
        "| c    | &lt;y> | 1.5 |",
    ],
    Form.COMPACT: [
        "| name | of | s |", "| --- | --- | ---: |", r"| a\|b | x | 10 |", "| c | &lt;y> | 1.5 |",
    ],
}  # fmt: skip


@pytest.mark.parametrize("form", Form)
def test_a_table_in_every_form(form):
    assert format_rows(HEAD, ROWS, form, left=2).splitlines() == FORMS[form]


def test_cells_may_be_markdown_already():
    text = format_rows(HEAD, ROWS, Form.COMPACT, cell=str.upper)
    assert text.splitlines()[2:] == ["| A|B | X | 10 |", "| C | <Y> | 1.5 |"]
    assert markdown_cell(" a \n|b & <c>") == r"a \|b &amp; &lt;c>"


def test_without_rows_the_head_stands_alone():
    assert format_rows(("a", "b"), []) == "a  b\n----"


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError):
        format_rows(("a", "b"), [["c"]])
