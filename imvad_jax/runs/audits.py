"""The audit of a run: said before any network, kept beside its metrics."""

from pathlib import Path

import numpy as np

from imvad_jax import audit
from imvad_jax.audit import Audit, Ranges
from imvad_jax.audit.separation import rank_correlation
from imvad_jax.data.category import CategoryData
from imvad_jax.marks import MARK
from imvad_jax.model.store import read_ranges
from imvad_jax.reporting.metric_names import CORRELATION
from imvad_jax.runs.record import write_json
from imvad_jax.runs.specs import Cell, Work
from imvad_jax.training import hosts

NAME = "audit.json"


def audit_cell(cell: Cell, data: CategoryData, work: Work) -> Audit | None:
    """The audit of the images of a cell, which is said; nothing is decoded for it.

    Of several hosts the first one makes it; the others have None.
    """
    if not hosts.is_first():
        return None
    with work.timings.stage("audit"):
        found = audit.of_category(data, cell.decoded_dir, cell.reading)
    for line in (*found.lines, *found.facts.notes):
        work.log(f"audit: {line}")
    return found


def find_ranges(found: Audit | None, is_new: bool, fitter: dict | None) -> Ranges | None:
    """The ranges of the good images of a model that is to be fitted, or those on its record."""
    if not is_new:
        return read_ranges(fitter or {})
    return found and found.ranges


def correlate(found: Audit | None, data: CategoryData, scores: np.ndarray, log) -> dict:
    """How far the scores of good test images follow the strongest number of the audit: a metric.

    Spearman's rank correlation, which is said, too. Among good images scores should follow nothing.
    """
    if found is None or not found.strongest:
        return {}
    name = found.strongest
    good = np.flatnonzero(data.labels == 0)
    values = found.facts.numbers[name][len(found.facts.names) - len(data.test_names) :]
    value = rank_correlation(values[good], np.asarray(scores)[good])
    if value is None:
        return {}
    log(
        f"audit: within the {len(good)} good test images the scores follow {name} by a rank "
        f"correlation of {value:.2f}"
    )
    return {CORRELATION: value}


def write_audit(run_dir: Path, found: Audit | None) -> None:
    """Writes audit.json into a run directory. Raises UserError: somebody else's file is there."""
    if found is not None:
        write_json(run_dir / NAME, {"program": MARK, **found.as_dict()})
