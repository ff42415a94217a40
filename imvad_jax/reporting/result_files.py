"""Result files, one per finished run: where they lie, how they are read, what tells them apart.

Their paths are `<dataset>/<category>/<method>/<preset>-<backbone>[,<override>][,tile=<px>,
overlap=<px>][,products=<precision>]-seed<k>.json`.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imvad_jax import methods, names, presets, sealed
from imvad_jax.errors import UserError
from imvad_jax.methods.base import config_from_strings
from imvad_jax.reporting.checked import check_metrics, check_timings
from imvad_jax.training.record import FORMAT
from imvad_jax.training.record_check import check_record

BASELINE = "raw_color"
FLOAT32 = "float32"
_REQUIRED = ("dataset", "category", "method", "preset", "config", "seed", "metrics")


def folder_name(text: str) -> str:
    """A method, category or dataset as the name of a folder on any system."""
    return names.safe(re.sub(r"[^\w.=+-]", "_", text))


def result_path(result: Mapping) -> Path:
    """Where the file of a result lies below the results directory.

    The label is preset, backbone, other overrides and tiles:
    `benchmark-resnet18,sigma=2-seed0.json`.
    """
    overrides = (f"{k}={v}" for k, v in overrides_of(result) if k != "backbone")
    parts = [f"{result['preset']}-{result['config']['backbone']}", *overrides, *_tiles(result)]
    parts += _products(result, "products=")
    label = names.safe(re.sub(r"[^\w.,=+-]", "_", ",".join(parts)), most=220)
    folders = [folder_name(result[key]) for key in ("dataset", "category", "method")]
    return Path(*folders, f"{label}-seed{result['seed']}.json")


def load_results(results_dir: str | Path) -> list[dict]:
    """All results below a directory, sorted by path.

    Raises:
      UserError: the directory is missing, or a file in it is no result; it is named.
    """
    root = Path(results_dir)
    if not root.is_dir():
        raise UserError(f"results directory {root}: not found; expected result files below it")
    results = []
    for path in sorted(root.rglob("*.json")):
        try:
            result = sealed.read(path)
        except sealed.DamagedError as error:
            raise UserError(f"{path}: {error}") from None
        except (ValueError, OSError) as error:
            raise UserError(f"{path}: not JSON ({error})") from None
        found = result if isinstance(result, dict) else {}
        if missing := [key for key in _REQUIRED if found.get(key) is None]:
            raise UserError(f"{path}: not a result; missing: {', '.join(missing)}")
        try:
            check_record(result, FORMAT)
            for field, check in (("metrics", check_metrics), ("timings", check_timings)):
                part = result.get(field)
                if not isinstance(part, dict | None):
                    raise ValueError(f"{field} is {part!r:.40}, expected an object")
                check(part or {})
        except ValueError as error:
            raise UserError(f"{path}: not a result ({error})") from None
        results.append(methods.with_newer_fields(result))
    return results


def overrides_of(result: Mapping) -> list[tuple[str, str]]:
    """The fields in which a run was told to differ from its preset, as text, sorted."""
    return sorted((key, str(value)) for key, value in (result.get("overrides") or {}).items())


def _tiles(result: Mapping) -> list[str]:
    names = ("tile", "overlap") if result.get("tile") else ()
    return [f"{name}={result[name]}" for name in names]


def products_of(result: Mapping) -> str:
    """What float32 products were computed in: `float32`, or what JAX was told (`default`: TF32
    where a GPU has it, bfloat16 on TPUs). Records that do not say so were made on CPUs.
    """
    return result.get("matmul_precision") or FLOAT32


def _products(result: Mapping, label: str) -> list[str]:
    found = products_of(result)
    return [] if found == FLOAT32 else [label + found]


def identity_key(result: Mapping, fields: Sequence[str]) -> str:
    """Text that is equal where two records agree in `fields`, and sortable."""
    values: dict[str, Any] = {field: result.get(field) for field in fields}
    if "config" in values:
        values["config"] = methods.decisive_fields(values["config"])
    if "matmul_precision" in values:
        values["matmul_precision"] = products_of(result)
    weights = values.get("weights")
    if weights:  # the same file under another name is the same
        values["weights"] = weights.get("sha256") or weights.get("source")
    return json.dumps(values, sort_keys=True, default=str)


def backbone_of(result: Mapping) -> str:
    """The name of the backbone in a record, `none` without one."""
    return result.get("backbone") or result["config"].get("backbone") or "none"


def changed_fields(result: Mapping) -> dict[str, Any]:
    """Returns the fields that differ from the preset as it is today, with the result's values."""
    if result["method"] not in methods.METHODS:  # of another package, which is not imported
        return {}
    preset = presets.of(result["method"]).get(result["preset"])
    if preset is None:
        return {"preset": result["preset"]}
    try:
        now = config_from_strings(preset, result.get("overrides") or {})
    except UserError:  # a field that is gone
        return {"overrides": "of another version"}
    fallback = now.without_missing_layers()
    newer = methods.with_newer_fields(dict(result))["config"]
    stored = json.loads(json.dumps(methods.decisive_fields(newer)))

    def differing(config: methods.DetectorConfig) -> dict[str, Any]:
        values = json.loads(json.dumps(methods.decisive_fields(dataclasses.asdict(config))))
        return {name: stored.get(name) for name, v in values.items() if stored.get(name) != v}

    return min([differing(config) for config in (now, fallback) if config], key=len)


def settings_text(result: Mapping) -> str:
    """Preset and overrides; the backbone has a column of its own, but random weights are named."""
    parts = [result["preset"]]
    parts += [f"{key}={value}" for key, value in overrides_of(result) if key != "backbone"]
    parts += [f"{key}={value}" for key, value in changed_fields(result).items() if key != "preset"]
    parts += _tiles(result)
    parts += _products(result, "products at precision ")
    if ((result.get("weights") or {}).get("source")) == "random":
        parts.append("**random weights**")
    return ", ".join(parts)


def is_absolute(text: str) -> bool:
    """Whether text is an absolute path on any system, or one from the home directory."""
    return text.startswith(("/", "~", "\\")) or bool(re.match(r"[A-Za-z]:[\\/]", text))


def portable_command(command: str) -> str:
    """A command without the paths of the machine that it ran on.

    Directories become `DIR` (`RUN` for `--workdir`); of a file its name is kept.
    """

    def shorten(match):
        flag, value = match.groups()
        if not is_absolute(value):
            return match.group(0)
        last = re.split(r"[/\\]", value.rstrip("/\\"))[-1]
        keep = re.search(r"\.\w{2,12}$", last)
        return f"{flag}{last if keep else 'RUN' if flag.startswith('--workdir') else 'DIR'}"

    return re.sub(r"(--\w+[= ])(\S+)", shorten, " ".join(command.split()))
