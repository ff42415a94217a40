"""From flags to a configuration: presets, overrides, and the record a run keeps of them."""

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from imvad_jax import methods
from imvad_jax.backbones import BACKBONES
from imvad_jax.errors import UserError, choose
from imvad_jax.methods.base import config_from_strings
from imvad_jax.training.record import config_of as config_of
from imvad_jax.training.record import read_record as read_record

# What must be equal for two runs to be the same run.
IDENTITY = (
    "method", "config", "dataset", "category", "seed", "weights", "holdout", "tile", "overlap",
    "full_scale",
)  # fmt: skip
# What must be equal for two runs to share a fitted detector.
DETECTOR = ("method", "config", "seed", "weights", "tile", "overlap", "full_scale")
_OF_EVALUATION = "mask_rule"  # the field that the figures depend on and the detector does not
_BY_TYPE = (1, 65535)  # what was white in files of each type before the record said so


def define_config_flags() -> None:
    """Defines one flag for every field of every method's configuration."""
    users: dict[str, list[str]] = {}
    for name, method in methods.METHODS.items():
        for field in dataclasses.fields(method.config):
            users.setdefault(field.name, []).append(name)
    for field, names in users.items():
        flags.DEFINE_string(field, None, f"Field of {', '.join(names)}; default: the preset's.")


def define_outside_flags(argv: Sequence[str]) -> None:
    """Defines the fields of methods of other packages that a command line names by --method(s).

    It is called before the flags are parsed, so that such fields are flags as all others are: in
    any place of the command line, with one way to write them, and stored as overrides.

    Raises:
      UserError: such a method cannot be loaded, or has a field that is another flag's name.
    """
    ours = _config_flags()
    for name in _outside_methods(argv):
        for field in dataclasses.fields(methods.get(name).config):
            if field.name in ours:
                continue
            if field.name in flags.FLAGS:
                raise UserError(
                    f"--method={name}: its field '{field.name}' is a flag of the program already; "
                    "call it otherwise"
                )
            flags.DEFINE_string(field.name, None, f"Field of {name}; default: the preset's.")
            ours.add(field.name)


def _outside_methods(argv: Sequence[str]) -> list[str]:
    """The names `package.module:Class` that a command line gives --method or --methods."""
    given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
    found = []
    for argument, following in zip(given, [*given[1:], ""]):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") in ("method", "methods") and name.startswith("-"):
            found += (value if equals else following).split(",")
    return [name.strip() for name in found if methods.outside.is_outside(name)]


def _config_flags() -> set[str]:
    """The flags that are fields of configurations."""
    return {flag.name for flag in flags.FLAGS.flags_by_module_dict().get(__name__, ())}


def config_overrides() -> dict[str, str]:
    """The configuration fields that were given as flags, as text."""
    given = {name: flags.FLAGS[name].value for name in sorted(_config_flags())}
    return {name: value for name, value in given.items() if value is not None}


def presets(method: str) -> dict[str, methods.DetectorConfig]:
    """The presets of a method: from experiments/configs/<method>.py, or those its class names."""
    found = methods.get(method)
    if methods.outside.is_outside(method):
        return {"official": found.config(), **found.detector.presets}
    return importlib.import_module(f"experiments.configs.{method}").presets()


def resolve(method: str, preset: str, overrides: dict[str, str]) -> methods.DetectorConfig:
    """The configuration that a preset and overrides name.

    Raises:
      UserError: an unknown method, preset, field, value or backbone.
    """
    available = presets(method)
    if methods.outside.is_outside(method) and preset not in available:
        raise UserError(
            f"--method={method}: has no preset '{preset}'; {methods.get(method).detector.__name__}"
            f".presets and the defaults give: {', '.join(available)}"
        )
    config = config_from_strings(available[choose("--preset", preset, available)], overrides)
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


def difference(old: dict, new: dict, keys: tuple[str, ...] = IDENTITY) -> str:
    """What differs between two records in `keys`, in words; empty if nothing does."""

    def flat(record: dict) -> dict:
        record = methods.with_newer_fields(record)
        kept = json.loads(json.dumps({key: record.get(key) for key in keys}))
        if "holdout" in kept:
            kept["holdout"] = kept["holdout"] or 0.0  # records from before there was any
        if kept.get("full_scale") in _BY_TYPE:
            kept["full_scale"] = None
        weights = kept.get("weights") or {}
        kept["weights"] = weights.get("sha256") or weights.get("source")
        config = methods.decisive_fields(kept.pop("config") or {})
        if keys == DETECTOR:
            config.pop(_OF_EVALUATION, None)
        return kept | {f"config.{name}": value for name, value in config.items()}

    old, new = flat(old), flat(new)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} {old.get(key)} there, {new.get(key)} now" for key in changed)


def check_same(
    run_dir: Path, wanted: dict, config: methods.DetectorConfig, keys: tuple[str, ...]
) -> dict | None:
    """The record in a run directory, None without any.

    Raises:
      UserError: it is a file, or holds another run than `wanted`, whose configuration is `config`.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"--workdir: {run_dir} is a file; expected a directory, or none yet")
    stored = read_record(run_dir)
    if stored is None:
        return None
    fallback = config.without_missing_layers()
    if fallback is not None and config_of(stored) == fallback:
        wanted = wanted | {"config": dataclasses.asdict(fallback)}
    refuse_other(run_dir, difference(stored, wanted, keys))
    return stored


def refuse_other(run_dir: Path, different: str) -> None:
    """Raises UserError if there is a difference between the run in a directory and this one."""
    if different:
        raise UserError(
            f"--workdir: {run_dir} holds another run ({different}); choose another directory or "
            "delete that one"
        )
