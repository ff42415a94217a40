"""Turns arbitrary names into file names that every file system accepts.

Ordinary names are unchanged. In others, whatever Windows or a limit of 255 bytes forbids is
replaced, and a digest of the whole name keeps them distinct.
"""

import hashlib
import re
import sys
import unicodedata

MOST = 150  # bytes of a part that is put into a file name; with what stands beside it below 255
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f\\/:*?"<>|\ud800-\udfff]')
_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(\..*)?",
    re.IGNORECASE,
)
_CHANGED = re.compile(r"~[0-9a-f]{8}")


def safe(name: str, most: int = MOST) -> str:
    """A name as a file or folder of any system can be called; ordinary ones are returned as is.

    Changed are names of more than `most` bytes, those that Windows keeps for devices (`CON`,
    `nul.txt`), characters that it forbids or a terminal obeys, and dots and spaces at the end,
    which it drops. They end in `~` and eight digits of the sha256 of `name`.
    """
    data = name.encode("utf-8", "surrogateescape")
    encoding = sys.getfilesystemencoding()  # it may be ASCII, and the name from elsewhere
    clean = _FORBIDDEN.sub("_", name.encode(encoding, "replace").decode(encoding)).rstrip(". ")
    if clean == name and name and len(data) <= most and not _RESERVED.fullmatch(name):
        return name
    digest = f"~{hashlib.sha256(data).hexdigest()[:8]}"
    room = most - len(digest)
    start = clean.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").rstrip(". ")
    if _RESERVED.fullmatch(start + digest):  # `con.x` is kept for a device, whatever follows
        start = start.replace(".", "_")
    return start + digest


def is_changed(name: str) -> bool:
    """Whether `safe` may have given this name for another one."""
    return bool(_CHANGED.fullmatch(name[-9:]))


def key(name: str) -> str:
    """Equal for names that are one to a file system that knows no capitals, or composes accents."""
    return unicodedata.normalize("NFC", name).lower()
