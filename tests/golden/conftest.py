"""Where the golden files are, and where what was compared is written."""

import os

import pytest

from tests.golden import record
from tests.golden.files import Golden, shared_root


@pytest.fixture(scope="session")
def load_golden():
    """load_golden(method, file=method) -> Golden; skips the test where there is no such folder."""
    folder = shared_root() / "reference" / "parity" / "methods"
    if not folder.is_dir():
        pytest.skip(f"no golden files at {folder} (set IMVAD_SHARED)")
    return lambda method, file=None: Golden(folder / f"{file or method}.npz", method)


def pytest_sessionfinish():
    """Writes the differences of this run to the file that IMVAD_FIDELITY_FILE names."""
    if os.environ.get(record.VARIABLE):
        record.write(os.environ[record.VARIABLE])
