"""Notebooks in a kernel of this Python; tests that need one are skipped where Jupyter is not."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def executed(cells, timeout: float = 120):
    """A notebook of these sources, or a notebook that was read, after it was run from top to end.

    Raises:
      CellExecutionError: of nbclient, with the traceback of the cell that failed.
    """
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if isinstance(cells, list):
        cells = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    # The kernel starts in the folder of this package, and so imports this very one.
    where = {"metadata": {"path": str(ROOT)}}
    client = nbclient.NotebookClient(cells, timeout=timeout, kernel_name="python3", resources=where)
    return client.execute()
