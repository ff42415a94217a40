"""Table and notes of `--compare=anomalib` for whole fits of trained methods."""

from collections.abc import Iterator, Sequence

from imvad_jax.benchmarks.columns import label_of, number
from imvad_jax.reporting.metric_names import format_value

COLUMNS = (
    "method", "program", "decode s", "fit s", "first epoch s", "epoch s", "ms a step",
    "score and metrics s", "process s", "peak GiB", "image AUROC",
)  # fmt: skip

HEADER = """\
- **Whole fits**: as **Whole processes**, of trained methods over a few epochs with the same images,
  size, batch and, where anomalib can have it, backbone with its weights. **first epoch s** counts
  from the start of the fit: it holds compilation, or the reading of compiled programs (warm), and
  what is computed before the first step. **epoch s** and **ms a step** are means of the epochs
  after it. Our last batch of an epoch is filled up, anomalib's is smaller. What else differs stands
  below the table. **image AUROC** is that of so few epochs: whether both learn, and no result.
"""


def is_fit(found: dict) -> bool:
    """Whether what a comparison found belongs into this table."""
    return "epochs" in found and "programs" in found


def _found(records: Sequence[dict]) -> Iterator[tuple[dict, dict]]:
    for record in records:
        for found in record.get("compare", {}).values():
            if is_fit(found):
                yield record, found


def rows(records: Sequence[dict]) -> list[list[str]]:
    """Cells below COLUMNS: a row of each program."""
    cells = []
    for record, found in _found(records):
        for name, took in found["programs"].items():
            test = [took[key]["median"] for key in ("score_s", "metrics_s") if key in took]
            auroc = format_value(took["metrics"]["image_auroc"])
            cells.append([
                label_of(record), name,
                number(took["decode_s"]["median"] if "decode_s" in took else None),
                *(number(took[key]["median"]) for key in ("fit_s", "first_epoch_s", "epoch_s")),
                number(1e3 * took["step_s"]["median"]),
                number(sum(test) if test else took["test_s"]["median"]),
                number(took["process_s"]["median"]),
                number(took["peak_bytes"]["median"] / 2**30),
                f"{auroc} after {found['epochs']} epochs",
            ])  # fmt: skip
    return cells


def notes(records: Sequence[dict]) -> list[str]:
    """What differs between the two programs by itself."""
    return [
        f"{record['method']}: {note}"
        for record, found in _found(records)
        for note in found.get("notes", ())
    ]
