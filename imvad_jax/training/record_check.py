"""What the record of a model may hold: looked at before anything is built from it."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from imvad_jax import methods
from imvad_jax.audit.ranges import Ranges

RANGES = "picture_ranges"  # the field of `audit.Ranges`


class NewerError(ValueError):
    """A newer program wrote the record."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_weights(value: Any) -> bool:
    if not isinstance(value, dict) or not _is_text(value.get("source")):
        return False
    digest = value.get("sha256")
    return digest is None or (_is_text(digest) and bool(re.fullmatch("[0-9a-f]+", digest)))


def _are_ranges(value: Any) -> bool:
    try:
        Ranges.from_dict(value)
    except ValueError:
        return False
    return True


_Test = tuple[Callable[[Any], bool], str]
_TEXT: _Test = _is_text, "a text"
_TEXTS: _Test = _are_texts, "a list of texts"
_OBJECT: _Test = _is_object, "an object"
_COUNT: _Test = (lambda v: _is_int(v) and v >= 0), "an integer from 0"

# Fields that something is built from, or a run is told apart by. Those that a record does not have
# are of a later version, and null is nothing said.
_FIELDS: dict[str, _Test] = {
    "method": _TEXT,
    "title": _TEXT,
    "preset": _TEXT,
    "overrides": _OBJECT,
    "config": _OBJECT,
    "dataset": _TEXT,
    "category": _TEXT,
    "seed": (_is_int, "an integer"),
    "weights": (_are_weights, "a source and a sha256 of hexadecimal digits, or null"),
    "notes": _TEXTS,
    "tile": _COUNT,
    "overlap": _COUNT,
    "holdout": ((lambda v: _is_number(v) and 0 <= v < 1), "a number from 0 to below 1"),
    "full_scale": ((lambda v: _is_number(v) and v > 0), "a number above 0"),
    "training_loop": ((lambda v: v in ("host", "device")), "host or device"),
    "train_files": _TEXTS,
    "calibration": _OBJECT,
    "backbone": _TEXT,
    "hardware": _TEXT,
    "commit": _TEXT,
    "command": _TEXT,
    "matmul_precision": _TEXT,
    "error": _TEXT,
    "checkpoint": _TEXT,
    "checkpoints": _TEXTS,
    "versions": _OBJECT,
    "found": _OBJECT,
    RANGES: (_are_ranges, "a number of images, and a lowest, median and highest value by name"),
}
# Of a configuration, pixels and numbers of things: least values.
_LEAST = {"image_size": 1, "crop_size": 0, "batch_size": 1, "epochs": 0, "steps_per_epoch": 0}


def check_record(record: Any, newest: int) -> None:
    """Looks at the fields of a record: the version, types and ranges.

    Raises:
      NewerError: its format is above `newest`.
      ValueError: names the field, what was found and what was expected.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{_kind(record)}, expected an object")
    found = record.get("format", newest)
    if not _is_int(found) or found > newest:
        raise NewerError(f"format {found!r:.40}")
    if found < 1:
        raise ValueError(f"format {found}, expected a number from 1")
    for field in ("method", "config"):
        if record.get(field) is None:
            raise ValueError(f"no field '{field}'")
    for field, (test, expected) in _FIELDS.items():
        value = record.get(field)
        if value is not None and not test(value):
            raise ValueError(f"{field} is {_shown(value)}, expected {expected}")
    backbone = record["config"].get("backbone")
    if backbone is not None and not _is_text(backbone):
        raise ValueError(f"config.backbone is {_shown(backbone)}, expected a text")
    tile, overlap = record.get("tile") or 0, record.get("overlap") or 0
    if tile and overlap >= tile:
        raise ValueError(f"overlap is {overlap}, expected less than the tile of {tile}")


def check_config(values: Mapping[str, Any], kind: type[methods.DetectorConfig]) -> None:
    """Looks at the fields of a stored configuration that `kind` has.

    Raises:
      ValueError: names the field, what was found and what was expected.
    """
    try:
        hints = typing.get_type_hints(kind)
    except NameError:  # of a class of another package that cannot be resolved
        hints = {}
    for field in dataclasses.fields(kind):
        if field.name not in values:
            continue
        value, hint = values[field.name], hints.get(field.name, Any)
        if not _fits(value, hint):
            raise ValueError(f"config.{field.name} is {_shown(value)}, expected {_words(hint)}")
        least = _LEAST.get(field.name)
        if least is not None and value < least:
            raise ValueError(f"config.{field.name} is {value}, expected an integer from {least}")
    if unknown := sorted(values.keys() - {field.name for field in dataclasses.fields(kind)}):
        raise ValueError(f"config.{unknown[0]}: {kind.__name__} has no such field")


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        item = arguments[0] if arguments else Any
        several = arguments[1:] == (...,)
        return isinstance(value, list | tuple) and (
            all(_fits(one, item) for one in value) if several
            else len(value) == len(arguments) and all(map(_fits, value, arguments))
        )  # fmt: skip
    if hint is float:
        return _is_int(value) or (isinstance(value, float) and not math.isnan(value))
    if hint is int:
        return _is_int(value)
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint is type(None):
        return value is None
    return True  # of a method of another package, which checks it itself


def _words(hint: Any) -> str:
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
    if typing.get_origin(hint) is tuple:
        return f"a list, each {_words(typing.get_args(hint)[0])}"
    return names.get(hint, str(hint))


def _shown(value: Any) -> str:
    return f"{_kind(value)} {value!r:.60}"


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", tuple: "list", str: "text", bool: "boolean"}
    return "null" if value is None else names.get(type(value), "number")
