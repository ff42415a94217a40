"""Writes `imvad_jax/presets/reached.json`, the figures of each preset, from result files."""

import json
from collections.abc import Sequence
from pathlib import Path

from imvad_jax import presets
from imvad_jax.marks import MARK
from imvad_jax.reporting.metric_names import METRICS, mean_of
from imvad_jax.reporting.result_files import changed_fields, load_results, portable_command

PATH = Path(presets.__file__).with_name("reached.json")
_SAME = ("dataset", "category", "method", "preset", "overrides")


def render(results_dir: str | Path) -> str:
    """The text of reached.json; equal files give equal text. Raises UserError as `load_results`."""
    groups: dict[str, list[dict]] = {}
    for result in load_results(results_dir):
        key = json.dumps([result.get(name) for name in _SAME], sort_keys=True)
        groups.setdefault(key, []).append(result)
    found: dict[str, dict[str, list[dict]]] = {}
    for _, members in sorted(groups.items()):
        first = members[0]
        of_method = found.setdefault(first["method"], {})
        of_method.setdefault(first["preset"], []).append(_row(members))
    return json.dumps({"program": MARK, **found}, indent=1) + "\n"  # the mark first


def _row(members: Sequence[dict]) -> dict:
    first = members[0]
    means = {m.key: mean_of([r["metrics"].get(m.key) for r in members])[0] for m in METRICS}
    return {
        "dataset": first["dataset"],
        "category": first["category"],
        "overrides": first.get("overrides") or {},
        "seeds": sorted(result["seed"] for result in members),
        "metrics": {key: None if v is None else round(v, 3) for key, v in means.items()},
        "commits": sorted({result.get("commit") or "" for result in members}),
        "command": portable_command(first.get("command") or ""),
        "changed_since": sorted({name for result in members for name in changed_fields(result)}),
    }
