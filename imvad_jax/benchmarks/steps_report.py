"""The training steps of `--compare=torch_steps`: names of their parts, their table, its notes.

Knows no PyTorch, so that stored files are rendered where it is not installed.
"""

from collections.abc import Iterator, Sequence

from imvad_jax.benchmarks.columns import label_of, number

COMPARISON = "torch_steps"  # its name among the comparisons of a record
STEP, KEPT = "training step", "training step, features kept"
COMPILED = ", torch.compile"  # at the end of a part's name; without: eager

COLUMNS = (
    "method", "features", "ours s", "PyTorch s", "compiled s", "PyTorch / ours", "compiled / ours",
    "difference",
)  # fmt: skip

HEADER = """\
- **Training steps against PyTorch** compares the same network with the same parameters in plain
  PyTorch (channels last, fused optimiser), eager and with torch.compile (**compiled**: loss and
  gradients), alternating with our compiled step; every turn begins with a step that is not timed.
  A step takes a batch from host memory and computes loss, gradients and update. **features** says
  whether the inputs that training does not change (such as a teacher's features) are computed in
  every step or cached in host memory, on both sides.
  **difference** is that of the first loss. Random numbers are drawn by our side and passed to
  PyTorch, whose step draws none; draws beyond plain noise are listed below the table.
  **XLA limited to AVX2** means that `XLA_FLAGS=--xla_cpu_max_isa=AVX2` was set; what PyTorch was
  limited by stands below the table.
"""


def is_step(name: str, work: str) -> bool:
    """Whether a part of a comparison belongs into this table."""
    return name == COMPARISON and work.startswith(STEP)


def _found(records: Sequence[dict]) -> Iterator[tuple[dict, dict]]:
    for record in records:
        if found := record.get("compare", {}).get(COMPARISON):
            yield record, found


def rows(records: Sequence[dict]) -> list[list[str]]:
    """Cells below COLUMNS: a row of each method with features in every step, and one with kept."""
    cells = []
    for record, found in _found(records):
        for work, features in ((STEP, "every step"), (KEPT, "kept")):
            both = [found["parts"].get(work + suffix) for suffix in ("", COMPILED)]
            if not any(both):
                continue
            there = [part for part in both if part]
            cells.append([
                label_of(record), features, number(there[0]["ours_s"]["median"]),
                *(number(part["theirs_s"]["median"] if part else None) for part in both),
                *(number(part["ratio"] if part else None) for part in both),
                f"{max(part['difference'] for part in there):.0e}",
            ])  # fmt: skip
    return cells


def notes(records: Sequence[dict]) -> list[str]:
    """What has to be known of the rows, and what could not be compared."""
    lines = []
    for record, found in _found(records):
        said = [*found.get("notes", ()), *([found["error"]] if "error" in found else ())]
        lines += [f"{record['method']}: {note}" for note in said]
    return lines
