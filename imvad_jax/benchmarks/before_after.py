"""Speed-ups by changes of the code: times of an earlier commit beside those of a file."""

from collections.abc import Mapping
from pathlib import Path

from imvad_jax.benchmarks.columns import number
from imvad_jax.reporting.text_table import Form, format_rows

DIRECTORY = "before"  # below that of the stored files
HEAD = ("method", "work", "before s", "now s", "before / now")


def render_before_after(directory: Path, before: Mapping, now: Mapping) -> str:
    """What was faster, as Markdown; the text beside the file of before says what changed.

    Both were measured by the same command. Only work that both hold stands in the table.

    Args:
      directory: Holds `<method>.md` for each method that is told of.
      before: The file of before.
      now: The present one.
    """
    texts, rows = [], []
    for new in now["records"]:
        for old in before["records"]:
            if "error" in new or "error" in old or old["method"] != new["method"]:
                continue
            text = (directory / f"{new['method']}.md").read_text(encoding="utf-8").strip()
            texts.append(f"Commit {old['commit']} against {new['commit']}. {text}\n")
            rows += _rows(new["method"], _ours(old), _ours(new))
    table = format_rows(HEAD, rows, Form.MARKDOWN, left=2)
    return "\n".join(["**Before and after**\n", *texts, table])


def _ours(record: Mapping) -> dict[str, float]:
    """Our medians in s, by work."""
    return {
        part.get("work", work): part["ours_s"]["median"]
        for compared in record.get("compare", {}).values()
        for work, part in compared.get("parts", {}).items()
    }


def _rows(method: str, before: Mapping, now: Mapping) -> list[list[str]]:
    return [
        [method, work, number(seconds), number(now[work]), number(seconds / now[work])]
        for work, seconds in before.items()
        if work in now
    ]
