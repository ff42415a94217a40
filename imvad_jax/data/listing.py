"""Lists a folder: its images, and all other files with the reason why they are not used."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from imvad_jax.data.image_files import (
    HEIF_HINT,
    HEIF_SUFFIXES,
    SUFFIXES,
    has_heif,
    looks_like_heif,
)
from imvad_jax.errors import listed, readable

UNKNOWN = "of unknown type"
OTHER = "of no picture format"
UNREADABLE = "unreadable"
BELOW = "in folders below"
MASK_OF_GOOD = "masks of good images"
ANOTHER_MASK = "further masks of images that have one"
ELSEWHERE = "where none is looked for"
CLOSED = "folders that cannot be read"

_SNIFFED = 16  # bytes of a file's head
# Of formats that are read, and of others that hold pictures all the same (camera raw is TIFF).
_READ_MAGIC = (
    b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"P5\n", b"P6\n", b"P4\n",
)  # fmt: skip
_OTHER_MAGIC = (b"8BPS", b"v/1\x01", b"\xff\x0a", b"\0\0\0\x0cJXL ", b"FUJIFILM", b"%!PS")
_PICTURE_SUFFIXES = (
    ".raw", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".dcm", ".avif", ".jxl", ".psd", ".exr", ".hdr",
    ".tga", ".ico", ".svg", ".eps", ".pcx", ".xcf",
)  # fmt: skip


class NotUsed(NamedTuple):
    """A file that is not looked at."""

    path: str
    why: str  # one of the reasons above, or a text for this kind of file
    detail: str = ""  # more about this file
    picture: bool = False  # whether a person would take it for a picture of a part

    def as_dict(self) -> dict:
        """For records and results.json."""
        return {"file": readable(self.path), "why": self.why, "detail": self.detail,
                "picture": self.picture}  # fmt: skip

    @classmethod
    def from_dict(cls, item: dict) -> "NotUsed":
        """What `as_dict` gave."""
        return cls(item["file"], item["why"], item["detail"], item["picture"])


class Listing(NamedTuple):
    """The pictures of a folder in the order of their names, and the other files."""

    images: list[str]
    not_used: list[NotUsed]


def classify(path: str) -> NotUsed | None:
    """None for a file that is to be read as a picture, else why it is not.

    Its suffix says so; without one, its first bytes. A file that is named like a picture counts as
    one whatever it holds: reading it will tell.
    """
    if os.path.isdir(path):
        return NotUsed(path, CLOSED, "", True)
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES:
        return None
    head = _head(path)
    if suffix in HEIF_SUFFIXES or looks_like_heif(head):
        return None if has_heif() else NotUsed(path, UNKNOWN, HEIF_HINT, True)
    read = head.startswith(_READ_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    if read and not suffix:
        return None
    if read or suffix in _PICTURE_SUFFIXES or head.startswith(_OTHER_MAGIC):
        return NotUsed(path, UNKNOWN, "", True)
    return NotUsed(path, OTHER)


def _head(path: str) -> bytes:
    try:
        if not os.path.isfile(path):  # a pipe would never end
            return b""
        with open(path, "rb") as file:
            return file.read(_SNIFFED)
    except OSError:
        return b""


def list_folder(folder: str | Path, recursive: bool = False) -> Listing:
    """The files of a folder; hidden ones are passed over, a folder that is not there holds none.

    Args:
      recursive: Takes the files of all folders below, too, links to folders followed, in circles
        once. Without it the pictures there are named as not used.
    """
    images: list[str] = []
    not_used: list[NotUsed] = []
    top = os.fspath(folder)
    for path in _files(top):
        why = classify(path)
        below = os.path.dirname(path) != top
        if why is None and below and not recursive:
            why = NotUsed(path, BELOW, "", True)
        if why is None:
            images.append(path)
        elif recursive or not below or why.picture:
            not_used.append(why)
    return Listing(images, not_used)


def _files(top: str) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()
    closed: list[str] = []
    walk = os.walk(top, followlinks=True, onerror=lambda error: closed.append(error.filename))
    for folder, folders, names in walk:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(folder, n) for n in sorted(names) if not n.startswith("."))
    yield from (path for path in closed if path != top)


def summarize(count: int, not_used: Sequence[NotUsed], most: int = 3) -> str:
    """One line: `120 images; not used: 1 of unknown type (IMG_0042.HEIC), 2 unreadable (...)`."""
    groups: dict[str, list[NotUsed]] = {}
    for item in not_used:
        groups.setdefault(item.why, []).append(item)
    parts = []
    for why, items in groups.items():
        if why == BELOW:
            folders = sorted({os.path.basename(os.path.dirname(item.path)) for item in items})
            parts.append(
                f"{len(items)} {why} ({listed([readable(f) for f in folders], most)}; "
                "--recursive takes them)"
            )
            continue
        names = [readable(os.path.basename(item.path)) for item in items]
        details = sorted({item.detail for item in items if item.detail})
        hint = f"; {listed(details, 1)}" if details else ""
        parts.append(f"{len(items)} {why} ({listed(names, most)}{hint})")
    found = f"{count} image{'' if count == 1 else 's'}"
    return f"{found}; not used: {', '.join(parts)}" if parts else found
