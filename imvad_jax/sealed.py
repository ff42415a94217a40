"""JSON files with a digest of their own values, to detect damage.

The digest is in the field `digest` of an object, or of the last entry of a list. It covers the
values, so a file may be reformatted. Files without a digest, from earlier versions, are read as
they are.
"""

import hashlib
import json
import math
import numbers
import re
from pathlib import Path
from typing import Any

FIELD = "digest"
_DEEPEST = 64  # lists and objects within each other
_LONGEST = 25  # digits of an integer


class DamagedError(ValueError):
    """What a file says of itself is not what it holds."""


def sealed(value: Any) -> Any:
    """An object, or a list of objects, with its digest; JSON gives back what it is given."""
    rest, _ = _apart(json.loads(json.dumps(value)))
    digest = {FIELD: _digest(rest)}
    if isinstance(rest, dict):
        return rest | digest
    return [*rest[:-1], rest[-1] | digest] if rest else rest


def dumps(value: Any, indent: int | None = 1) -> str:
    """The JSON text of `sealed(value)`, with a line end."""
    return json.dumps(sealed(value), indent=indent) + "\n"


def plain(value: Any) -> Any:
    """A value as strict JSON has it: floats of any type as `float`, NaN and infinity as null."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value) if math.isfinite(value) else None
    return value


def parse(text: str | bytes) -> Any:
    """The value of a JSON text without its digest.

    What no file of the program holds is refused for all who read one: integers that no `float` can
    hold, text that cannot be written as UTF-8, and lists within lists beyond what recursion bears.

    Raises:
      ValueError: it is no JSON, or such; `DamagedError` where its digest is another.
    """
    try:
        value = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check(value)
    rest, stated = _apart(value)
    if stated is None and (odd := _like_a_digest(value)):
        raise DamagedError(f"damaged: '{odd:.40}' in the place of its digest")
    if stated is not None and stated != (found := _digest(rest)):
        raise DamagedError(
            f"damaged, or changed by hand: its digest is {found}, expected {stated!s:.40}; take a "
            f"copy of it, or delete the field '{FIELD}' to have it read as it is"
        )
    return rest


def read(path: str | Path) -> Any:
    """As `parse`, of a file. Raises OSError too."""
    return parse(Path(path).read_bytes())


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST:
        raise ValueError(f"an integer of {len(digits)} digits, expected at most {_LONGEST}")
    return int(digits)


def _check(value: Any, depth: int = 0) -> None:
    if isinstance(value, str):
        value.encode()  # a UnicodeEncodeError is a ValueError
    elif isinstance(value, dict | list):
        if depth == _DEEPEST:
            raise ValueError("nested too deeply")
        for entry in value:
            _check(entry, depth + 1)
        if isinstance(value, dict):
            for entry in value.values():
                _check(entry, depth + 1)


def _apart(value: Any) -> tuple[Any, Any]:
    """The value without its digest, and the digest; None without one."""
    if isinstance(value, dict) and FIELD in value:
        return {key: entry for key, entry in value.items() if key != FIELD}, value[FIELD]
    if isinstance(value, list) and value and isinstance(value[-1], dict) and FIELD in value[-1]:
        last, stated = _apart(value[-1])
        return [*value[:-1], last], stated
    return value, None


def _like_a_digest(value: Any) -> str | None:
    """The name of the last field if it holds what a digest would be: the name itself is damaged."""
    last = value[-1] if isinstance(value, list) and value else value
    if not isinstance(last, dict) or not last:
        return None
    name, entry = list(last.items())[-1]
    return name if isinstance(entry, str) and re.fullmatch("[0-9a-f]{32}", entry) else None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
