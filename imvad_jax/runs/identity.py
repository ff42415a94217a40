"""Defines when two runs are the same, and when they share a fitted detector."""

import dataclasses
import json
from pathlib import Path

from imvad_jax import methods
from imvad_jax.errors import UserError
from imvad_jax.training.record import config_of, read_record

# What must be equal for two runs to be the same run.
IDENTITY = (
    "method", "config", "dataset", "category", "seed", "weights", "holdout", "tile", "overlap",
    "full_scale",
)  # fmt: skip
# What must be equal for two runs to share a fitted detector.
DETECTOR = ("method", "config", "seed", "weights", "tile", "overlap", "full_scale")
_OF_EVALUATION = "mask_rule"  # the field that the figures depend on and the detector does not
_BY_TYPE = (1, 65535)  # what was white in files of each type before the record said so


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
