"""What golden tests compared, for docs/fidelity.md: see imvad_jax/programs/fidelity.py."""

import json
from pathlib import Path

import jax

from imvad_jax.runs.record import environment
from imvad_jax.training.parallel import Parallel

VARIABLE = "IMVAD_FIDELITY_FILE"
_FOUND: dict[tuple[str, str], dict] = {}


def add(method: str, quantity: str, difference: float, kind: str, tolerance: float) -> None:
    """Notes a comparison; `kind` is the type in which it was computed."""
    row = {"method": method, "quantity": quantity, "computed_in": kind}
    _FOUND[method, quantity] = row | {"difference": difference, "tolerance": tolerance}


def write(path: str | Path) -> None:
    """Writes all comparisons of this run as JSON, by method, in the order in which they ran."""
    rows = sorted(_FOUND.values(), key=lambda row: row["method"])
    made = {"made_with": environment(Parallel(jax.devices()[:1])), "comparisons": rows}
    Path(path).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
