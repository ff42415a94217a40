"""Faults that damaged files have shown: each is refused by name."""

import numpy as np
import pytest
from PIL import Image

from imvad_jax.data.decode import read_image
from imvad_jax.data.masks import read_mask
from imvad_jax.errors import UserError

ROWS = 0x0101  # the TIFF tag of the height


def test_a_tiff_with_fewer_rows_than_its_head_tells_of(tmp_path):
    path = tmp_path / "part.tif"
    Image.fromarray(np.full((40, 48), 9, np.uint16)).save(path)
    content = bytearray(path.read_bytes())
    (start,) = np.frombuffer(content[4:8], "<u4")
    entries = int.from_bytes(content[start : start + 2], "little")
    places = [start + 2 + 12 * number for number in range(entries)]
    (place,) = [p for p in places if int.from_bytes(content[p : p + 2], "little") == ROWS]
    content[place + 10] = 16  # 40 rows become 1,048,616, or as many as two bytes hold
    content[place + 2 : place + 4] = (4).to_bytes(2, "little")
    path.write_bytes(content)
    for read in (read_image, lambda name: read_mask(name, name)):
        with pytest.raises(UserError, match="has 40 rows, but 1048616 by its head") as caught:
            read(str(path))
        assert str(caught.value).startswith(str(path))


def test_an_error_is_one_line_whatever_a_file_put_into_it():
    error = UserError("x.json: category 'a\nb\u2028c\x1b[2J'")
    assert error.text == str(error) == r"x.json: category 'a\x0ab\u2028c\x1b[2J'"
