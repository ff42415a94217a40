"""One process, eight virtual devices: what holds here holds on eight real ones."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parent.parent.parent / "shared"
    path = Path(os.environ.get("IMVAD_SHARED", default))
    if not (path / "data" / "mvtec_ad").is_dir():
        pytest.skip(f"no real data at IMVAD_SHARED={path}")
    return path
