"""Named configurations of the methods, one file per method, and the figures that each reached.

`reached` returns these figures with the commands that produced them; `imvad results` writes them
from the result files, and tests check them.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path

from imvad_jax import methods
from imvad_jax.backbones import BACKBONES
from imvad_jax.errors import UserError, choose
from imvad_jax.methods.base import config_from_strings


def of(method: str) -> dict[str, methods.DetectorConfig]:
    """The presets of a method by name: those of its file here, or those that its class names.

    Raises:
      UserError: there is no such method.
    """
    found = methods.get(method)
    if methods.outside.is_outside(method):
        return {"official": found.config(), **found.detector.presets}
    return importlib.import_module(f"{__name__}.{method}").presets()


def resolve(
    method: str, preset: str | None, overrides: Mapping[str, str]
) -> methods.DetectorConfig:
    """The configuration that a preset and overrides name; without a preset the method's defaults.

    Raises:
      UserError: an unknown method, preset, field, value or backbone.
    """
    available = of(method) if preset is not None else {}
    if preset is None:
        config = methods.get(method).config()
    elif methods.outside.is_outside(method) and preset not in available:
        raise UserError(
            f"--method={method}: has no preset '{preset}'; {methods.get(method).detector.__name__}"
            f".presets and the defaults give: {', '.join(available)}"
        )
    else:
        config = available[choose("--preset", preset, available)]
    config = config_from_strings(config, overrides)
    if config.backbone != "none" or "backbone" in overrides:
        choose("--backbone", config.backbone, BACKBONES)
    return config


def resolve_all(
    names: list[str], preset: str, overrides: dict[str, str]
) -> dict[str, tuple[methods.DetectorConfig, dict[str, str]]]:
    """Configuration and overrides by method. Of several methods each takes the fields that it has.

    Raises:
      UserError: as `resolve`, and for an override that none of the methods has.
    """
    found, unused = {}, set(overrides)
    for name in names:
        own = overrides
        if len(names) > 1:
            fields = {field.name for field in dataclasses.fields(methods.get(name).config)}
            own = {key: value for key, value in overrides.items() if key in fields}
        unused -= own.keys()
        found[name] = resolve(name, preset, own), own
    if unused:
        raise UserError(f"--{min(unused)}: none of {', '.join(names)} has such a field")
    return found


def reached(method: str, preset: str) -> list[dict]:
    """What a preset reached: a row for each category, and for other overrides, that was measured.

    A row has `dataset`, `category`, `overrides`, `seeds`, the mean `metrics` by name, the `commits`
    and the `command`, and `changed_since`: fields of the preset that have another value today.
    """
    return _reached().get(method, {}).get(preset, [])


@functools.cache
def _reached() -> dict:
    return json.loads(Path(__file__).with_name("reached.json").read_text(encoding="utf-8"))
