"""Named configurations of the methods: one file a method, with the command of what it reaches."""

import dataclasses
import importlib

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


def resolve(method: str, preset: str | None, overrides: dict[str, str]) -> methods.DetectorConfig:
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
