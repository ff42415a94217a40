"""Strategies that damage files: bytes of any file, values of a JSON file, members of an archive."""

import copy
import io
import json
import struct
import zipfile
import zlib

from hypothesis import strategies as st

_PLACE = st.integers(0, 2**31 - 1)  # modulo the length of what is changed
_LENGTH = st.integers(1, 64)
# What fields of binary formats turn on: ends of ranges, signs, sizes that are too large.
_TELLING = st.sampled_from(
    [b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff",
     b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\x27\x10", b"\x10\x27\0\0", b"\n", b"{", b"(", b"."]
)  # fmt: skip
_EDIT = st.one_of(
    st.tuples(st.just("flip"), _PLACE, st.integers(1, 255)),
    st.tuples(st.just("write"), _PLACE, st.one_of(_TELLING, st.binary(min_size=1, max_size=8))),
    st.tuples(st.just("insert"), _PLACE, st.one_of(_TELLING, st.binary(min_size=1, max_size=8))),
    st.tuples(st.just("cut"), _PLACE),
    st.tuples(st.just("drop"), _PLACE, _LENGTH),
    st.tuples(st.just("repeat"), _PLACE, _LENGTH),
    st.tuples(st.just("swap"), _PLACE, _PLACE, _LENGTH),
)
EDITS = st.lists(_EDIT, min_size=1, max_size=4)


def edited(content: bytes, edits: list[tuple]) -> bytes:
    """`content` with every edit of `EDITS` made in turn."""
    for kind, place, *how in edits:
        size = max(len(content), 1)
        at = place % size
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ how[0]]) + content[at + 1 :]
        elif kind == "write":
            content = content[:at] + how[0] + content[at + len(how[0]) :]
        elif kind == "insert":
            content = content[:at] + how[0] + content[at:]
        elif kind == "cut":
            content = content[:at]
        elif kind == "drop":
            content = content[:at] + content[at + how[0] :]
        elif kind == "repeat":
            content = content[: at + how[0]] + content[at:]
        elif kind == "swap":
            content = _swapped(content, at, how[0] % size, how[1])
    return content


def _swapped(content: bytes, one: int, other: int, length: int) -> bytes:
    low, high = sorted((one, other))
    length = min(length, high - low, len(content) - high)
    first, second = content[low : low + length], content[high : high + length]
    between = content[low + length : high]
    return content[:low] + second + between + first + content[high + length :]


def checked_png(content: bytes) -> bytes:
    """A PNG whose chunks have the checks of what they hold, so that a reader looks into them."""
    at, parts = 8, [content[:8]]
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if at + 12 + length > len(content):
            break
        body = content[at + 4 : at + 8 + length]
        parts.append(content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join(parts) + content[at:]


def edited_member(archive: bytes, number: int, edits: list[tuple]) -> bytes:
    """An archive with one member edited and checked anew: its CRC-32 would hide the rest."""
    with zipfile.ZipFile(io.BytesIO(archive)) as before:
        members = [(name, before.read(name)) for name in before.namelist()]
    chosen, out = number % len(members), io.BytesIO()
    with zipfile.ZipFile(out, "w") as after:
        for index, (name, content) in enumerate(members):
            if index == chosen:  # heads tell more than values: the half of the edits that hit them
                head = content[:128]
                content = edited(head, edits) + content[128:] if number % 2 else (
                    edited(content, edits)
                )  # fmt: skip
            after.writestr(name, content)
    return out.getvalue()


# JSON that `json.dumps` does not write, by the text that stands for it.
_RAW = {
    "@digits@": "1" + "0" * 5000,
    "@large@": "1" + "0" * 400,
    "@infinite@": "1e999",
    "@deep@": "[" * 100_000 + "]" * 100_000,
    "@nested@": '{"a":' * 300 + "1" + "}" * 300,
    "@byte@": '"\\ud800"',
}
_VALUES = st.sampled_from(
    [None, True, False, 0, -1, 1, 2**31, 2**63, 1.5, -0.0, 1e308, float("nan"), float("-inf"), "",
     "x", "0", "a\nb", "\x1b[2J", "../..", "/", "nan", "x" * 2000, [], {}, [[]], [None], [1, "a"],
     {"": None}, {"a": {"b": []}}, *_RAW]
)  # fmt: skip
_JSON_EDIT = st.one_of(
    st.tuples(st.just("put"), _PLACE, _VALUES),
    st.tuples(st.just("delete"), _PLACE),
    st.tuples(st.just("rename"), _PLACE, st.sampled_from(["", "x", "a\nb", "epoch", "config"])),
    st.tuples(st.just("wrap"), _PLACE),
    st.tuples(st.just("double"), _PLACE),
    st.tuples(st.just("exchange"), _PLACE, _PLACE),
)
JSON_EDITS = st.lists(_JSON_EDIT, min_size=1, max_size=3)


def edited_json(value: object, edits: list[tuple]) -> bytes:
    """The JSON text of `value` with every edit of `JSON_EDITS` made in turn."""
    top = [copy.deepcopy(value)]
    for kind, place, *how in edits:
        spots = list(_spots(top))
        holder, key = spots[place % len(spots)]
        if kind == "put":
            holder[key] = copy.deepcopy(how[0])  # the next edit may change it
        elif kind == "wrap":
            holder[key] = [holder[key]]
        elif kind == "exchange":
            other, there = spots[how[0] % len(spots)]
            holder[key] = copy.deepcopy(other[there])
        elif kind == "double" and isinstance(holder[key], list):
            holder[key] = holder[key] + copy.deepcopy(holder[key])
        elif kind == "delete" and holder is not top:
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[how[0]] = holder.pop(key)
    text = json.dumps(top[0], indent=1)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def _spots(holder):
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _spots(holder[key])
