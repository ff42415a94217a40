"""Opens a zip archive whose table of contents is of a bounded size."""

import io
import zipfile
from contextlib import ExitStack
from pathlib import Path

from imvad_jax.backbones.lazy_tensor import Malformed

# A checkpoint has some 100 bytes a record here, and several thousand records at most.
_TABLE_BYTES = 1 << 22


class _Guarded(io.BufferedReader):
    """Refuses a single read of more than `most` bytes, while `most` is set."""

    most: int | None = _TABLE_BYTES

    def read(self, size: int | None = -1) -> bytes:
        if self.most is not None and size is not None and size > self.most:
            raise Malformed(
                f"its table of contents has {size:,} bytes, expected at most {self.most:,}"
            )
        return super().read(size)


def open_zip(path: Path, closing: ExitStack) -> zipfile.ZipFile:
    """Returns the archive, open until `closing` closes.

    `zipfile` reads the whole table of contents at once and makes an object of each entry; of
    a file made of entries alone that would take minutes.

    Raises:
      Malformed: the table is too large.
      zipfile.BadZipFile: it is no archive.
    """
    file = closing.enter_context(_Guarded(io.FileIO(path)))
    archive = closing.enter_context(zipfile.ZipFile(file))
    file.most = None
    return archive
